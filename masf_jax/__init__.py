"""Data assimilation in JAX: score-based and classical filters on equal terms.

Everything a user may name is reachable from here, and imported when it is first used.
"""

from typing import TYPE_CHECKING

from ._lazy import lazy

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import (
        dynamics as dynamics,
        ensemble as ensemble,
        filters as filters,
        masf as masf,
        measurements as measurements,
        metrics as metrics,
        observations as observations,
        plots as plots,
        results as results,
        smoothers as smoothers,
        training as training,
    )
    from .coordinates import Coordinates as Coordinates
    from .derivatives import NoDerivativeError as NoDerivativeError
    from .driver import (
        Assimilation as Assimilation,
        FaultError as FaultError,
        FilterDivergedWarning as FilterDivergedWarning,
        assimilate as assimilate,
        begin as begin,
    )
    from .filters.faults import FaultPolicy as FaultPolicy, FaultWarning as FaultWarning
    from .filters.likelihood import Likelihood as Likelihood
    from .masf import MASF as MASF, AmortisedMASF as AmortisedMASF
    from .quality_control import GrossErrorCheck as GrossErrorCheck
    from .record import Record as Record
    from .run_state import RunState as RunState
    from .twin import Simulation as Simulation, Twin as Twin, simulate as simulate

__getattr__, __dir__ = lazy(
    __name__,
    {
        "MASF": ".masf",
        "AmortisedMASF": ".masf",
        "Assimilation": ".driver",
        "FaultError": ".driver",
        "FaultPolicy": ".filters.faults",
        "FaultWarning": ".filters.faults",
        "FilterDivergedWarning": ".driver",
        "NoDerivativeError": ".derivatives",
        "Likelihood": ".filters.likelihood",
        "assimilate": ".driver",
        "begin": ".driver",
        "Record": ".record",
        "RunState": ".run_state",
        "Coordinates": ".coordinates",
        "GrossErrorCheck": ".quality_control",
        "Simulation": ".twin",
        "Twin": ".twin",
        "simulate": ".twin",
    },
    (
        "amortised",
        "bases",
        "denoisers",
        "diffusion",
        "dynamics",
        "ensemble",
        "filters",
        "masf",
        "measurements",
        "metrics",
        "nn",
        "observations",
        "plots",
        "results",
        "smoothers",
        "training",
    ),
)
