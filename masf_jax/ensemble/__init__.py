"""Pure array mathematics of ensembles."""

from typing import TYPE_CHECKING

from .inflation import AdaptiveInflation as AdaptiveInflation, Inflation as Inflation
from .localization import (
    Localization as Localization,
    gaspari_cohn as gaspari_cohn,
    localize as localize,
    taper_matrix as taper_matrix,
)
from .taper import Taper as Taper, taper as taper

if not TYPE_CHECKING:  # which knows what there is
    from .._lazy import unknown

    __getattr__ = unknown(__name__)
