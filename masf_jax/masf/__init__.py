"""The measurement-aware score-based filter."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .amortised.filter import AmortisedMASF as AmortisedMASF
    from .filter import MASF as MASF
    from .priors.base import DenoiserFit as DenoiserFit, GaussianFit as GaussianFit, KernelFit as KernelFit
    from .priors.conditional_kernel import (
        ConditionalFit as ConditionalFit,
        ConditionalKernel as ConditionalKernel,
    )
    from .routes.linearized import Linearization as Linearization

__getattr__, __dir__ = lazy(
    __name__,
    {
        "MASF": ".filter",
        "AmortisedMASF": ".amortised.filter",
        "ConditionalFit": ".priors.conditional_kernel",
        "ConditionalKernel": ".priors.conditional_kernel",
        "DenoiserFit": ".priors.base",
        "GaussianFit": ".priors.base",
        "KernelFit": ".priors.base",
        "Linearization": ".routes.linearized",
    },
    ("amortised",),
)
