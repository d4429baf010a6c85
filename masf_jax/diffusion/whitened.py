"""The singular values of a whitened (linearised) measurement, in the cheapest coordinates it allows."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..bases import Basis, BlockBasis, CellBasis, FourierBasis, IdentityBasis, MatrixBasis
from ..measurements import Coarsen, Gaussian
from ..measurements.measurement import Measurement
from .process import Frame

__all__ = ["WhitenedProblem", "check_structure", "whitened"]

DENSE_LIMIT = 4096
"""Largest state whose n × n matrix of singular vectors is formed."""


class WhitenedProblem(NamedTuple):
    """G = R^{-1/2} H diag(scale) = U S Vᵀ: the frame with basis V, S, and Vᵀ Gᵀ R^{-1/2}(z - H centre)."""

    frame: Frame
    singular_values: Float[Array, "*v"]
    projected: Float[Array, "*v"]


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
    the last, GᵀG is diagonal and its diagonal is Vᵀ Gᵀ G V applied to a vector of ones. A Fourier structure
    does not survive single missing values: where any is missing, nothing counts as measured.

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
    transposed = jax.linear_transpose(g, centre)

    if basis is None and _dense(measurement, centre.shape):
        columns = jax.vmap(g, out_axes=-1)(
            jnp.eye(centre.size, dtype=centre.dtype).reshape(-1, *centre.shape)
        )
        matrix = columns.reshape(-1, centre.size)
        _, s, vt = jnp.linalg.svd(matrix, full_matrices=True)
        s = jnp.zeros(centre.size, s.dtype).at[: s.size].set(s)
        tiny = centre.size * jnp.finfo(s.dtype).eps * s[0]
        s = jnp.where(s > tiny, s, 0.0)
        chosen = MatrixBasis(vt.T, None, centre.shape)
        return WhitenedProblem(Frame(centre, scale, chosen), s, vt @ (matrix.T @ innovation.reshape(-1)))

    chosen = basis
    if basis is None and operator.coupling(centre.shape) == "cell":
        chosen = CellBasis(transposed(jnp.ones_like(value))[0])
    elif chosen is None:
        chosen = _by_structure(operator, len(centre.shape))
    ones = chosen.back(jnp.ones_like(chosen.to(centre)))
    squared = chosen.to(transposed(g(ones))[0])
    rounding = 0.0 if isinstance(chosen, IdentityBasis) else 10 * jnp.finfo(squared.dtype).eps
    tiny = rounding * squared.max()
    s = jnp.sqrt(jnp.where(squared > tiny, squared, 0.0))
    return WhitenedProblem(Frame(centre, scale, chosen), s, chosen.to(transposed(innovation)[0]))


def _by_structure(operator: object, ndim: int) -> Basis:
    n_axes = 1 if ndim == 1 else 2
    structure = getattr(operator, "structure", None)
    if structure == "fourier":
        return FourierBasis(n_axes)
    if isinstance(operator, Coarsen):
        return BlockBasis(operator.factor, n_axes)
    return IdentityBasis()
