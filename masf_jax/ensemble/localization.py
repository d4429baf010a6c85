"""Localisation: Gaspari-Cohn tapers and neighbour lists over any coordinates."""

from __future__ import annotations

from typing import Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ..coordinates import Coordinates
from ..numbers import as_float, number

__all__ = [
    "Localization",
    "as_radius",
    "as_radius_or_none",
    "gaspari_cohn",
    "localize",
    "taper_matrix",
]


def as_radius(radius: float | Float[Array, ""]) -> Float[Array, ""]:
    """The radius as a leaf, refused unless it is positive."""
    return number("localisation radius", radius, "(0, inf]", must="be positive (inf: no localisation)")


def as_radius_or_none(radius: float | Float[Array, ""] | None) -> Float[Array, ""] | None:
    """The same, of a filter that does without a taper where there is no localisation: None for inf."""
    if radius is None:
        return None
    checked = as_radius(radius)
    return None if not isinstance(checked, Tracer) and np.isinf(as_float(checked)) else checked


@overload
def gaspari_cohn(r: np.ndarray) -> np.ndarray: ...
@overload
def gaspari_cohn(r: Array) -> Array: ...
def gaspari_cohn(r: np.ndarray | Array) -> np.ndarray | Array:
    """The compactly supported fifth-order correlation function, at r = distance / radius.

    1 - 5/3 r² + 5/8 r³ + 1/2 r⁴ - 1/4 r⁵ for r ≤ 1;
    4 - 5 r + 5/3 r² + 5/8 r³ - 1/2 r⁴ + 1/12 r⁵ - 2/(3 r) for 1 < r ≤ 2; zero beyond.
    In float64 of a NumPy array; in its own type, traceable and differentiable, of a JAX array.

    Source: Gaspari & Cohn (1999), eq. 4.10.
    """
    if isinstance(r, jax.Array):  # the outer part factored: as it stands it cancels in float32
        r = jnp.minimum(jnp.abs(r), 2.0)
        outer = (2 - r) ** 4 * (r * (r + 2) - 0.5) / (12 * jnp.maximum(r, 0.5))
        return jnp.where(r <= 1, _inner(r), outer)
    r = np.abs(np.asarray(r, dtype=np.float64))
    safe = np.maximum(r, 0.5)
    outer = 4 + r * (-5 + r * (5 / 3 + r * (5 / 8 + r * (-1 / 2 + r / 12)))) - 2 / (3 * safe)
    return np.where(r <= 1, _inner(r), np.where(r < 2, np.maximum(outer, 0), 0.0))


def _inner(r: Any) -> Any:
    return 1 + r**2 * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))


class Localization(eqx.Module):
    """For each grid point, the measurements near it and the square roots of their taper weights.

    `neighbours[i, :]` are indices into the raveled measurement; lists shorter than the longest are
    padded with weight 0.
    """

    neighbours: Int[Array, "p k"]
    sqrt_weights: Float[Array, "p k"]


def localize(
    state: Coordinates,
    measured: Coordinates,
    radius: float | Float[Array, ""],
    reach: float | None = None,
) -> Localization:
    """Neighbour lists within the taper's support (2·radius) around every grid point.

    Args:
        state: positions of the p grid points.
        measured: positions of the m measured values.
        radius: Gaspari-Cohn length c, in the coordinates' unit; the weight is .208 at distance c and
            zero from 2c on (a Gaussian of standard deviation c/1.82 is close to it). inf: all
            measurements, weight 1.
        reach: largest radius that the lists serve, so that those of all radii have one shape; None: the
            radius itself, or all measurements where that is traced.

    Raises:
        ValueError: a radius that is not positive, that is beyond the reach (where traced: weights are NaN),
            or a reach without any measurement.
    """
    as_radius(radius)
    largest = float("inf") if isinstance(radius, Tracer) else as_float(radius)
    if reach is None and np.isinf(largest) and not isinstance(radius, Tracer):
        p, m = state.n_points, measured.n_points
        return Localization(jnp.asarray(np.broadcast_to(np.arange(m), (p, m)), jnp.int32), jnp.ones((p, m)))
    if reach is not None:
        number("reach", reach, "(0, inf]")
        if not isinstance(radius, Tracer) and largest > reach:
            raise ValueError(
                f"localisation radius {largest} is beyond the reach {reach} of the neighbour lists: give a "
                "larger reach."
            )
        largest = float(reach)
    neighbours, distance = _neighbours(state, measured, largest, "radius" if reach is None else "reach")
    weights = _weights(distance, radius)
    if isinstance(weights, np.ndarray):
        return Localization(jnp.asarray(neighbours, jnp.int32), jnp.asarray(np.sqrt(weights)))
    weights = jnp.where((radius > 0) & (radius <= largest), weights, jnp.nan)
    zero = weights == 0  # where a root has no derivative
    roots = jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, weights)))
    return Localization(jnp.asarray(neighbours, jnp.int32), roots)


def _neighbours(
    state: Coordinates, measured: Coordinates, radius: float, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the measured values within 2·radius of each point, padded to (p, k), and their distances."""
    from scipy.spatial import KDTree

    p, m = state.n_points, measured.n_points
    if np.isinf(radius):
        return np.broadcast_to(np.arange(m), (p, m)), _distances(state, measured)
    boxsize = [length if length > 0 else 0.0 for length in state.period]
    tree = KDTree(measured.wrapped(), boxsize=boxsize)
    points, support = state.wrapped(), 2.0 * radius
    longest = int(np.max(tree.query_ball_point(points, support, return_length=True, workers=-1)))
    if longest == 0:
        raise ValueError(
            f"localisation {name} {radius} leaves every grid point without measurements (none within "
            f"{support}): raise the {name} or check the coordinates' units."
        )
    distance, index = tree.query(points, k=longest, distance_upper_bound=support * (1 + 1e-12), workers=-1)
    distance, index = distance.reshape(p, longest), index.reshape(p, longest)
    return np.where(index < m, index, 0), np.where(np.isfinite(distance), distance, 2 * support)


def _distances(first: Coordinates, second: Coordinates) -> Float[np.ndarray, "p q"]:
    difference = np.abs(first.wrapped()[:, None, :] - second.wrapped()[None, :, :])
    period = np.asarray(first.period)
    difference = np.where(period > 0, np.minimum(difference, period - difference), difference)
    return np.sqrt((difference**2).sum(-1))


def _weights(distance: np.ndarray, radius: float | Float[Array, ""]) -> np.ndarray | Array:
    """By NumPy in float64 for a known radius, else traced."""
    if isinstance(radius, Tracer):
        return gaspari_cohn(jnp.asarray(distance, dtype=float) / radius)
    return gaspari_cohn(distance / as_float(radius))


def taper_matrix(
    first: Coordinates, second: Coordinates, radius: float | Float[Array, ""]
) -> Float[np.ndarray | Array, "p q"]:
    """Gaspari-Cohn weights between all pairs of two sets of points (dense: small problems only).

    A NumPy array in float64; of a traced radius a JAX array.
    """
    as_radius(radius)
    if not isinstance(radius, Tracer) and np.isinf(as_float(radius)):
        return np.ones((first.n_points, second.n_points))
    return _weights(_distances(first, second), radius)
