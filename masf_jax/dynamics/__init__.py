"""Models: pure functions of one member, one step."""

from typing import TYPE_CHECKING

from .base import Dynamics as Dynamics
from .blackbox import BlackBox as BlackBox
from .courant import cfl_violations as cfl_violations, check_cfl as check_cfl
from .function import Function as Function
from .host import BlackBoxError as BlackBoxError
from .kolmogorov import EnergyBudget as EnergyBudget, Kolmogorov as Kolmogorov
from .kuramoto_sivashinsky import KuramotoSivashinsky as KuramotoSivashinsky
from .layout import MemberLayout as MemberLayout
from .linear import Linear as Linear
from .lorenz63 import Lorenz63 as Lorenz63
from .lorenz96 import Lorenz96 as Lorenz96
from .model_error import ModelError as ModelError
from .rollout import (
    Climatology as Climatology,
    advance as advance,
    climatological_states as climatological_states,
    climatology as climatology,
    rollout as rollout,
    spun_up_ensemble as spun_up_ensemble,
)

if not TYPE_CHECKING:  # which knows what there is
    from .._lazy import unknown

    __getattr__ = unknown(__name__)
