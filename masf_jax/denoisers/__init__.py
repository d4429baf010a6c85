"""Denoisers D(x, φ) ≈ E[x0 | x]: the one thing a score-based filter has to know."""

from ..ensemble.density import silverman_factor as silverman_factor
from .base import Denoiser as Denoiser
from .covariance import (
    Covariance as Covariance,
    DenseCovariance as DenseCovariance,
    DiagonalCovariance as DiagonalCovariance,
    LowRankCovariance as LowRankCovariance,
)
from .gaussian import GaussianDenoiser as GaussianDenoiser, ensemble_gaussian as ensemble_gaussian
from .hybrid import HybridDenoiser as HybridDenoiser
from .kernel import KernelDenoiser as KernelDenoiser, ensemble_kernel as ensemble_kernel
from .local import LocalCovariance as LocalCovariance
from .network import NetworkDenoiser as NetworkDenoiser, in_type as in_type
from .tapered import TaperedCovariance as TaperedCovariance
