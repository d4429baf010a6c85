"""Data assimilation in JAX: score-based and classical filters on equal terms."""

from . import (
    dynamics as dynamics,
    ensemble as ensemble,
    filters as filters,
    measurements as measurements,
    metrics as metrics,
)
from .assimilate import (
    Assimilation as Assimilation,
    FilterDivergedWarning as FilterDivergedWarning,
    assimilate as assimilate,
)
from .coordinates import Coordinates as Coordinates
from .quality_control import GrossErrorCheck as GrossErrorCheck
from .twin import Twin as Twin, simulate as simulate

__version__ = "0.1.0"
