"""The forecast as a Gaussian mixture."""

from __future__ import annotations

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ...denoisers.base import Denoiser
from ...denoisers.kernel import ensemble_kernel
from ...diffusion.process import Process
from ...ensemble.density import check_bandwidth
from .base import Prior

__all__ = ["KernelPrior"]


class KernelPrior(Prior):
    """A kernel around each member.

    Args:
        bandwidth: in standard deviations of each component; None: Silverman's rule for the state's size.
        shrink: whether the mixture keeps the ensemble's variance (see `ensemble_kernel`).
    """

    bandwidth: Float[Array, ""] | None = None
    shrink: bool = eqx.field(static=True, default=True)

    def __init__(self, bandwidth: float | None = None, shrink: bool = True):
        self.bandwidth = check_bandwidth(bandwidth)
        self.shrink = shrink

    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        return ensemble_kernel(ensemble, self.bandwidth, self.shrink), memory, {}
