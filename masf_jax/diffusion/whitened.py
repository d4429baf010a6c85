"""The singular values of a whitened (linearised) measurement, in the cheapest coordinates it allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..bases import Basis, BlockBasis, CellBasis, FourierBasis, IdentityBasis, MatrixBasis
from ..derivatives import root_or_zero
from ..dynamics.layout import current
from ..ensemble.order import after
from ..measurements import Coarsen, Gaussian
from ..measurements.measurement import Measurement
from .process import Frame

__all__ = ["WhitenedProblem", "check_structure", "whitened"]

DENSE_LIMIT = 4096
"""Largest state whose n × n matrix of singular vectors is formed."""


class WhitenedProblem(NamedTuple):
    """G = R^{-1/2} H diag(scale) = U S Vᵀ: the frame with basis V, S, and y = Uᵀ R^{-1/2}(z - H centre).

    So y_i = s_i v_i + ε_i, ε ~ N(0, I); y_i = 0 where s_i = 0.
    """

    frame: Frame
    singular_values: Float[Array, "*v"]
    values: Float[Array, "*v"]


def check_structure(
    measurement: Measurement, scale_shape: tuple[int, ...], state_shape: tuple[int, ...]
) -> None:
    """Raises ValueError where no exact coordinates for the (linearised) measurement are known, and says why.

    Args:
        scale_shape: shape of the normalising scale.
    """
    operator, name = measurement.operator, type(measurement.operator).__name__
    structure, n = operator.structure, math.prod(state_shape)
    one_scale = math.prod(scale_shape[-2:]) == 1
    if structure == "fourier":
        uniform = isinstance(measurement.noise, Gaussian) and measurement.noise.std.size == 1
        if not uniform or not one_scale:
            raise ValueError(
                f"{name} acts on Fourier modes, which needs noise Gaussian(std) and a normalising scale that "
                "are the same at all grid points: give one number each."
            )
    elif isinstance(operator, Coarsen) and not _dense(measurement, state_shape) and not one_scale:
        raise ValueError(
            f"{name} averages blocks, which needs a normalising scale that is the same at all grid points: "
            f"give one number (or one a channel); got shape {scale_shape}."
        )
    elif _dense(measurement, state_shape) and n > DENSE_LIMIT:
        raise ValueError(
            f"{name} with {type(measurement.noise).__name__} noise has no structure that helps, and {n} "
            f"components are too many for an {n} × {n} matrix (largest: {DENSE_LIMIT})."
        )


def _dense(measurement: Measurement, state_shape: tuple[int, ...]) -> bool:
    operator = measurement.operator
    if operator.structure is None and operator.coupling(state_shape) is None:
        return True
    composed = operator.structure == "block" and not isinstance(operator, Coarsen)
    return operator.structure == "dense" or composed or not measurement.noise.diagonal


def whitened(
    measurement: Measurement,
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"],
    centre: Float[Array, "*x"],
    scale: Float[Array, "..."],
    basis: Basis | None = None,
    at: Float[Array, "*x"] | None = None,
) -> WhitenedProblem:
    """Coordinates, singular values and projected values of the whitened measurement.

    A nonlinear H is replaced by its tangent H(at) + J (x - at). Where each value depends on one component J
    is diagonal; where it depends on the channels of one cell (flow speed), those are reflected so that one
    of them is measured; else J is a dense matrix.

    Identity and masks keep the state's components, convolutions take Hartley, block averages block
    coordinates; a dense H or a full R takes the singular vectors of the n × n problem. In every basis but
    the last, GᵀG is diagonal. Singular values are right relative to themselves, also of sensors of very
    different precision; but for convolutions, which know them to round-off of the largest. A Fourier
    structure does not survive single missing values: where any is missing, nothing counts as measured.

    Args:
        basis: coordinates in which GᵀG is known to be diagonal, instead of those by structure.
        at: where a nonlinear H is linearised; None: at `centre`.
    """
    check_structure(measurement, scale.shape, centre.shape)
    at = centre if at is None else at
    operator, noise = measurement.operator, measurement.noise
    wide = jnp.broadcast_to(scale.astype(centre.dtype), centre.shape)
    if operator.structure == "fourier":
        mask = jnp.broadcast_to(mask.all(), mask.shape)

    def g(x: Array) -> Array:
        return noise.whiten(tangent(wide * x), mask)

    value, tangent = jax.linearize(operator, at)
    innovation = noise.whiten(measurement.innovation(z, at) - tangent(centre - at), mask)
    if basis is None and _dense(measurement, centre.shape):
        columns = jax.vmap(g, out_axes=-1)(
            jnp.eye(centre.size, dtype=centre.dtype).reshape(-1, *centre.shape)
        )
        vectors, s, y = _singular(columns.reshape(-1, centre.size), innovation.reshape(-1))
        return WhitenedProblem(Frame(centre, scale, MatrixBasis(vectors, None, centre.shape)), s, y)

    largest = jnp.max(
        jnp.abs(g(jnp.ones_like(centre)))
    )  # squares of what it divides neither over- nor underflow
    unit = jnp.where(largest > 0, largest, 1.0)
    transposed = jax.linear_transpose(lambda x: g(x) / unit, centre)
    chosen = basis
    if basis is None and operator.coupling(centre.shape) == "cell":
        chosen = CellBasis(transposed(jnp.ones_like(value))[0])
    elif chosen is None:
        chosen = _by_structure(operator, len(centre.shape))
    s = _diagonal(lambda x: g(x) / unit, chosen, centre)
    y = chosen.to(transposed(innovation)[0]) / jnp.where(s > 0, s, 1.0)
    return WhitenedProblem(Frame(centre, scale, chosen), unit * s, jnp.where(s > 0, y, 0.0))


@jax.custom_jvp
def _singular(
    g: Float[Array, "m n"], innovation: Float[Array, " m"]
) -> tuple[Float[Array, "n n"], Float[Array, " n"], Float[Array, " n"]]:
    """V, S and Uᵀ innovation of G = U S Vᵀ.

    With rows from the longest down, and triangular where there are more rows than columns, each row loses
    round-off of itself, not of the largest; a singular value is 0 where it is no more than that.
    """
    m, n = g.shape
    length = jnp.max(jnp.abs(g), axis=1)
    order = jnp.argsort(-length)
    g, length, innovation = g[order], length[order], innovation[order]
    if m > n:
        q, r = jnp.linalg.qr(g.T)
        x, s, ut = jnp.linalg.svd(after(r, q), full_matrices=False)
        vectors = q @ x
    else:
        u, s, vt = jnp.linalg.svd(g, full_matrices=True)
        vectors, ut = vt.T, u.T
    tiny = max(m, n) * jnp.finfo(s.dtype).eps * (jnp.abs(ut) @ length)
    known = s > tiny
    s, y = jnp.where(known, s, 0.0), jnp.where(known, ut @ innovation, 0.0)
    return vectors, jnp.zeros(n, s.dtype).at[: s.size].set(s), jnp.zeros(n, s.dtype).at[: y.size].set(y)


@_singular.defjvp
def _singular_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """With M = Uᵀ dG V: dS = diag M, dV = V K, K_ij = (s_i M_ij + s_j M_ji)/(s_j² - s_i²), and
    dU = (dG V + G dV - U dS) S⁻¹.

    What is not measured is turned by what is only. Equal singular values have no V of their own, yet what is
    made of U, S and V together has a derivative: those nearer than √ε count as that far apart, all together
    by the same factors, and the derivative is that of the G which has them.
    """
    (g, innovation), (dg, moved) = primals, tangents
    v, s, y = _singular(g, innovation)
    eps = jnp.finfo(s.dtype).eps
    near = (s[1:] > 0) & (s[:-1] - s[1:] <= jnp.sqrt(eps) * s[:-1])
    s = s.at[1:].multiply(jnp.exp(-2 * jnp.sqrt(eps) * jnp.cumsum(near).astype(s.dtype)))
    known = s > 0
    inverse = jnp.where(known, 1 / jnp.where(known, s, 1.0), 0.0)
    u = jnp.where(known[None], (g @ v), 0.0)
    u = u / jnp.where(known, jnp.sqrt((u**2).sum(0)), 1.0)[None]
    along = dg @ v
    m = u.T @ along
    gap = (s[None] - s[:, None]) * (s[None] + s[:, None])
    turn = (s[:, None] * m + s[None] * m.T) / jnp.where(gap == 0, 1.0, gap)
    dv = v @ jnp.where(gap == 0, 0.0, turn)
    ds = jnp.diagonal(m)
    du = (along + ((u * s[None]) @ v.T) @ dv - u * ds[None]) * inverse[None]
    return (v, s, y), (dv, ds, du.T @ innovation + u.T @ moved)


def _diagonal(g: Callable[[Array], Array], basis: Basis, like: Float[Array, "*x"]) -> Float[Array, "*v"]:
    """S in a basis where GᵀG is diagonal."""
    if isinstance(basis, FourierBasis):  # not by its squares, of which half the digits are lost
        axes = tuple(range(-basis.n_axes, 0))
        impulse = jnp.zeros_like(like).at[(..., *(0,) * basis.n_axes)].set(1.0)
        s = jnp.abs(jnp.fft.fftn(current().whole(g(impulse)), axes=axes)).astype(like.dtype)
        return jnp.where(s > 10 * jnp.finfo(s.dtype).eps * s.max(), s, 0.0)
    ones = basis.back(jnp.ones_like(basis.to(like)))
    squared = basis.to(jax.linear_transpose(g, like)(g(ones))[0])
    if isinstance(basis, BlockBasis):
        corner = np.ones(like.shape, bool)
        for axis in range(-basis.n_axes, 0):
            first = np.arange(like.shape[axis]) % basis.factor == 0
            corner &= first.reshape(-1, *(1,) * (-axis - 1))
        squared = jnp.where(corner, squared, 0.0)
    elif isinstance(basis, CellBasis):
        squared = squared.at[1:].set(0.0)
    elif not isinstance(basis, IdentityBasis):
        squared = jnp.where(squared > 10 * jnp.finfo(squared.dtype).eps * squared.max(), squared, 0.0)
    return root_or_zero(squared)


def _by_structure(operator: object, ndim: int) -> Basis:
    n_axes = 1 if ndim == 1 else 2
    structure = getattr(operator, "structure", None)
    if structure == "fourier":
        return FourierBasis(n_axes)
    if isinstance(operator, Coarsen):
        return BlockBasis(operator.factor, n_axes)
    return IdentityBasis()
