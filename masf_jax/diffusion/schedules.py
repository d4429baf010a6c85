"""Schedules: how signal fades in diffusion time, and at which times a sampler stops."""

from __future__ import annotations

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from ..numbers import whole

__all__ = ["TIME_GRIDS", "TimeGrid", "cosine_schedule", "time_grid"]

TimeGrid = Literal["uniform", "quadratic", "log_snr"]
TIME_GRIDS: tuple[TimeGrid, ...] = ("uniform", "quadratic", "log_snr")


def cosine_schedule(t: Scalar, offset: float = 0.008) -> Scalar:
    """a_t = cos(((t + s)/(1 + s))·π/2) / cos((s/(1 + s))·π/2): 1 at t = 0, 0 at t = 1; s = `offset`.

    Source: Nichol & Dhariwal (2021), as used in arXiv 2604.02889.
    """
    quarter = 0.5 * math.pi
    scale = math.cos(offset / (1 + offset) * quarter)
    return jnp.sin((1 - t) / (1 + offset) * quarter) / scale  # the same cosine, exactly 0 at t = 1


def time_grid(n_steps: int, kind: TimeGrid = "uniform", first: float = 1.0) -> Float[Array, " {n_steps}+1"]:
    """Diffusion times from `first` down to 0, at which a reverse process with `n_steps` steps stops.

    With u = 1 - j/n: "uniform" t = u; "quadratic" t = u² (fine near the data); "log_snr" equal steps in
    log tan(t·π/2), the log noise-to-signal ratio of a component nothing is known of, between t = `first`
    and t = first/64, then one step to 0.

    Raises:
        ValueError: n_steps below 1, an unknown kind, or `first` outside (0, 1].
    """
    whole("n_steps", n_steps, 1)
    if kind not in TIME_GRIDS:
        raise ValueError(f"the time grid must be one of {', '.join(TIME_GRIDS)}; got {kind!r}.")
    if not 0 < first <= 1:
        raise ValueError(f"the first diffusion time must lie in (0, 1]; got {first}.")
    u = np.linspace(1.0, 0.0, n_steps + 1)
    if kind == "quadratic":
        u = u**2
    elif kind == "log_snr" and n_steps > 1:
        largest = np.tan(0.5 * np.pi * 63 / 64)
        inner = np.arctan(np.geomspace(largest, 1 / largest, n_steps)) * 2 / np.pi
        inner[0] = 1.0
        u = np.append(inner, 0.0)
    return jnp.asarray(first * u, dtype=float)
