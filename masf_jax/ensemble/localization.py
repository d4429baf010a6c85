"""Localisation: Gaspari-Cohn tapers and neighbour lists over any coordinates."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..coordinates import Coordinates

__all__ = ["Localization", "gaspari_cohn", "localize", "taper_matrix"]


def gaspari_cohn(r: np.ndarray) -> np.ndarray:
    """The compactly supported fifth-order correlation function, at r = distance / radius.

    1 - 5/3 r² + 5/8 r³ + 1/2 r⁴ - 1/4 r⁵ for r ≤ 1;
    4 - 5 r + 5/3 r² + 5/8 r³ - 1/2 r⁴ + 1/12 r⁵ - 2/(3 r) for 1 < r ≤ 2; zero beyond.
    Source: Gaspari & Cohn (1999), eq. 4.10.
    """
    r = np.abs(np.asarray(r, dtype=np.float64))
    inner = 1 + r**2 * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    safe = np.maximum(r, 0.5)
    outer = 4 + r * (-5 + r * (5 / 3 + r * (5 / 8 + r * (-1 / 2 + r / 12)))) - 2 / (3 * safe)
    return np.where(r <= 1, inner, np.where(r < 2, np.maximum(outer, 0), 0.0))


class Localization(eqx.Module):
    """For each grid point, the measurements near it and the square roots of their taper weights.

    `neighbours[i, :]` are indices into the raveled measurement; lists shorter than the longest are
    padded with weight 0.
    """

    neighbours: Int[Array, "p k"]
    sqrt_weights: Float[Array, "p k"]


def check_radius(radius: float) -> None:
    if not radius > 0:
        raise ValueError(f"localisation radius must be positive (inf: no localisation); got {radius}.")


def localize(state: Coordinates, measured: Coordinates, radius: float) -> Localization:
    """Neighbour lists within the taper's support (2·radius) around every grid point.

    Args:
        state: positions of the p grid points.
        measured: positions of the m measured values.
        radius: Gaspari-Cohn length c, in the coordinates' unit; the weight is .208 at distance c and
            zero from 2c on (a Gaussian of standard deviation c/1.82 is close to it). inf: all
            measurements, weight 1.
    """
    from scipy.spatial import KDTree

    check_radius(radius)
    p, m = state.n_points, measured.n_points
    if np.isinf(radius):
        neighbours = np.broadcast_to(np.arange(m), (p, m))
        return Localization(jnp.asarray(neighbours, jnp.int32), jnp.ones((p, m)))
    boxsize = [length if length > 0 else 0.0 for length in state.period]
    tree = KDTree(measured.wrapped(), boxsize=boxsize)
    points, support = state.wrapped(), 2.0 * radius
    longest = int(np.max(tree.query_ball_point(points, support, return_length=True, workers=-1)))
    if longest == 0:
        raise ValueError(
            f"localisation radius {radius} leaves every grid point without measurements (none within "
            f"{support}): raise the radius or check the coordinates' units."
        )
    distance, index = tree.query(points, k=longest, distance_upper_bound=support * (1 + 1e-12), workers=-1)
    distance, index = distance.reshape(p, longest), index.reshape(p, longest)
    weight = gaspari_cohn(np.where(np.isfinite(distance), distance, np.inf) / radius)
    neighbours = np.where(index < m, index, 0)
    return Localization(jnp.asarray(neighbours, jnp.int32), jnp.asarray(np.sqrt(weight)))


def taper_matrix(first: Coordinates, second: Coordinates, radius: float) -> Float[np.ndarray, "p q"]:
    """Gaspari-Cohn weights between all pairs of two sets of points (dense: small problems only)."""
    check_radius(radius)
    if np.isinf(radius):
        return np.ones((first.n_points, second.n_points))
    difference = np.abs(first.wrapped()[:, None, :] - second.wrapped()[None, :, :])
    period = np.asarray(first.period)
    difference = np.where(period > 0, np.minimum(difference, period - difference), difference)
    return gaspari_cohn(np.sqrt((difference**2).sum(-1)) / radius)
