"""Names of earlier versions, with their defaults."""

from __future__ import annotations

import math

from ..denoisers.gaussian import Members
from .priors.base import Prior as DenoiserFit
from .priors.gaussian import GaussianPrior
from .priors.kernel import KernelPrior as KernelFit
from .routes.conditional import Conditional as ConditionalFit
from .routes.linearized import Linearized as Linearization

__all__ = ["ConditionalFit", "DenoiserFit", "GaussianFit", "KernelFit", "Linearization"]


def GaussianFit(radius: float = math.inf, members: Members = "fresh") -> GaussianPrior:
    """`GaussianPrior`, whose members are transported by default."""
    return GaussianPrior(radius, members)
