"""Filters that find the size of the measurement noise themselves: two keys beside their own."""

from __future__ import annotations

from typing import Literal

from ....filters.base import MemberFilter

__all__ = ["with_adaptive_noise"]


def with_adaptive_noise(
    made: MemberFilter, adaptive_noise: Literal["one", "each"] | None = None, noise_memory: float = 200.0
) -> MemberFilter:
    """The filter, within `AdaptiveNoise` where that is asked for.

    Args:
        adaptive_noise: finds the variance of the measurement noise along the way, in units of the one given:
            one factor for all values, or each its own; null: the noise is known.
        noise_memory: cycles that a factor comes from.
    """
    if adaptive_noise is None:
        return made
    if hasattr(getattr(made, "prior", None), "architecture"):
        raise ValueError(
            "adaptive_noise: a network is trained for the noise it is told; use prior=gaussian or kernel, or "
            "adaptive_noise=null."
        )
    from ....filters import AdaptiveNoise

    return AdaptiveNoise(made, memory=noise_memory, each=adaptive_noise == "each")
