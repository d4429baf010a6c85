"""What is made of a forecast ensemble: a denoiser, by the ensemble's Gaussian, its kernels, or a network."""

from typing import TYPE_CHECKING

from ..._lazy import lazy

if TYPE_CHECKING:
    from .base import Prior as Prior
    from .gaussian import GaussianPrior as GaussianPrior
    from .hybrid import HybridPrior as HybridPrior
    from .kernel import KernelPrior as KernelPrior
    from .network import NetworkPrior as NetworkPrior

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Prior": ".base",
        "GaussianPrior": ".gaussian",
        "HybridPrior": ".hybrid",
        "KernelPrior": ".kernel",
        "NetworkPrior": ".network",
    },
)
