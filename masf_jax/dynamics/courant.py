"""Courant numbers of an ensemble: which members are too fast for a flow model's time step."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from .kolmogorov import Kolmogorov

__all__ = ["cfl_violations", "check_cfl"]


@jax.jit
def cfl_violations(model: Kolmogorov, ensemble: Float[Array, "N 2 ny nx"]) -> Bool[Array, " N"]:
    """True for each member whose Courant number is over the model's `cfl_limit`, or not finite."""
    return jax.vmap(model.courant_number)(ensemble) > model.cfl_limit


def check_cfl(model: Kolmogorov, ensemble: Float[Array, "N 2 ny nx"]) -> None:
    """Refuses an ensemble with members too fast for the model's inner step; not for use under jit.

    Raises:
        ValueError: naming the members, their Courant numbers, and the `n_inner` that suffices.
    """
    courant = np.asarray(jax.vmap(model.courant_number)(ensemble), np.float64)
    bad = np.flatnonzero(courant > model.cfl_limit)
    if bad.size:
        shown = ", ".join(f"{i}: {courant[i]:.2f}" for i in bad[:10]) + (", …" if bad.size > 10 else "")
        largest = courant[np.isfinite(courant)].max(initial=0.0)
        needed = max(model.n_inner, int(np.ceil(model.n_inner * largest / model.cfl_default)))
        raise ValueError(
            f"{bad.size} of {len(courant)} members exceed the Courant number {model.cfl_limit:.2f} of "
            f"n_inner={model.n_inner} (member: number) {shown}; use n_inner={needed} or a larger max_speed."
        )
