"""The QR factorisation of tall matrices, also with rows spread over devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from ..dynamics.layout import AXIS, current

__all__ = ["by_rows", "tall_qr"]


def by_rows(matrix: Float[Array, "k n"]) -> Float[Array, "k n"]:
    """The matrix itself as a product: XLA on CPUs refuses an FFT whose result LAPACK takes by columns."""
    return jnp.matmul(matrix, jnp.eye(matrix.shape[1], dtype=matrix.dtype), precision="highest")


def tall_qr(a: Float[Array, "m k"]) -> tuple[Float[Array, "m k"], Float[Array, "k k"]]:
    """Q and R of a matrix of m ≥ k rows; by rows where the run is on several devices.

    Then each device factorises its own rows, and all of them the R of all devices: only those k × k
    numbers a device are sent, and the result is as orthogonal as that of one factorisation.

    Source: "tall and skinny QR", Demmel, Grigori, Hoemmen & Langou (2012), doi 10.1137/080731992.
    """
    layout, (m, k) = current(), a.shape
    if layout.devices is None or m < k * layout.n_devices:
        return jnp.linalg.qr(a)

    def own(rows: Array) -> tuple[Array, Array]:
        q, r = jnp.linalg.qr(by_rows(rows))
        turn, r = jnp.linalg.qr(jax.lax.all_gather(r, AXIS, tiled=True))
        return q @ jax.lax.dynamic_slice_in_dim(turn, jax.lax.axis_index(AXIS) * k, k), r

    rows, whole = PartitionSpec(AXIS), PartitionSpec()
    padded = jnp.pad(a, ((0, -m % layout.n_devices), (0, 0)))
    q, r = layout.local(own, rows, (rows, whole))(padded)
    return q[:m], r
