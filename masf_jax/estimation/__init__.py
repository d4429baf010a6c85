"""Unknown numbers of a model, a sensor or a filter, found from what is measured."""

from .em import EM
from .engine import Engine, Estimate
from .estimate import estimate
from .gradient import Gradient, log_likelihood
from .state import AugmentedState
from .unknown import LogitNormal, LogNormal, Normal, Prior, Problem, Unknown, Unknowns

__all__ = [
    "EM",
    "AugmentedState",
    "Engine",
    "Estimate",
    "Gradient",
    "LogNormal",
    "LogitNormal",
    "Normal",
    "Prior",
    "Problem",
    "Unknown",
    "Unknowns",
    "estimate",
    "log_likelihood",
]
