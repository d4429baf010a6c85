"""Measurement noise laws: draw, log-density, whitening, each with a mask of valid values."""

from __future__ import annotations

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from ..ensemble.double import any_of_batch
from ..numbers import number

__all__ = ["CorrelatedGaussian", "Gaussian", "Laplace", "Noise", "Scaled", "StudentT", "as_noise"]


class Noise(eqx.Module):
    """The law of ε = z - H(x) for one measurement array; masked-out values carry no information."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        """A draw of ε."""

    @abc.abstractmethod
    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        """log p(ε = residual) of the values that are True in `mask` (marginal over the rest)."""

    @abc.abstractmethod
    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        """R^{-1/2} residual, where R is the noise covariance; zero where `mask` is False."""

    @property
    def diagonal(self) -> bool:
        """Whether errors of different values are uncorrelated (localisation needs that)."""
        return True

    @property
    def condition(self) -> Float[Array, ""] | float:
        """The condition number of the errors' correlations."""
        return 1.0

    @property
    def depends_on_value(self) -> bool:
        """Whether the law changes with H(x): then only `at(H(x))` can be drawn from, scored or whitened."""
        return False

    def at(self, value: Float[Array, "*z"]) -> Noise:
        """The law where the noise-free measurement H(x) is `value`."""
        return self

    def widened(self, like: Float[Array, "*z"], variance: Float[Array, "*z"]) -> Noise:
        """The law with `variance` added to that of each value, for a measurement of the type of `like`.

        Here stretched about 0, value by value, which holds where R is diagonal.
        """
        return Scaled(self, jnp.sqrt(1 + variance / self.standard_deviation(like) ** 2))

    def standard_deviation(self, like: Float[Array, "*z"]) -> Float[Array, "*z"]:
        """Standard deviation of each value's error, for a measurement of the shape and type of `like`.

        Here 1 / (R^{-1/2} 1), which holds where R is diagonal.
        """
        return 1.0 / self.whiten(jnp.ones_like(like))

    def log_scale(self, like: Float[Array, "*z"], mask: Bool[Array, "*z"]) -> Float[Array, ""]:
        """log |R^{-1/2}| of the values that are True in `mask`, for a measurement of the shape of `like`.

        Here -Σ log std, which holds where R is diagonal; a value of infinite std is not there.
        """
        std = self.standard_deviation(like)
        return -jnp.where(_known(mask, std), jnp.log(std), 0.0).sum()


def _scale(name: str, value: ArrayLike) -> Float[Array, ...]:
    return number(name, value, "(0, inf]", everywhere=True)


def _masked(values: Array, mask: Array | None) -> Array:
    return values if mask is None else jnp.where(mask, values, 0.0)


def _known(mask: Array | None, scale: Array) -> Array:
    """Which values say anything: what is there, and known to a finite error."""
    return jnp.isfinite(scale) if mask is None else mask & jnp.isfinite(scale)


class Gaussian(Noise):
    """ε ~ N(0, std²), independent.

    Args:
        std: scalar, or an array of z's shape (diagonal R); in the units of z.
    """

    std: Float[Array, ...]

    def __init__(self, std: ArrayLike):
        self.std = _scale("std of the noise", std)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        return self.std * jax.random.normal(key, shape, self.std.dtype)

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        std = jnp.broadcast_to(self.std.astype(residual.dtype), residual.shape)
        log_density = -0.5 * (residual / std) ** 2 - jnp.log(std) - 0.5 * math.log(2 * math.pi)
        return jnp.where(_known(mask, std), log_density, 0.0).sum()

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        return _masked(residual / self.std.astype(residual.dtype), mask)


_LOST = 1e-3
"""Share of a whitened value that the round-off of correlations may be, by the bound of `condition`."""


class CorrelatedGaussian(Noise):
    """ε ~ N(0, R) with a full covariance over a vector measurement.

    A missing value is marginalised exactly: its row and column of R become those of the identity. R = D C D
    is kept as its standard deviations D and the Cholesky factor of its correlations C, made in double
    precision; where values are missing the others' factor is made of it, and not of R, of which float32
    keeps half as many digits.

    Args:
        covariance: R, symmetric positive definite (m, m).
    """

    std: Float[Array, " m"]
    factor: Float[Array, "m m"]
    """Lower triangular L, C = L Lᵀ."""

    def __init__(self, covariance: ArrayLike):
        traced = isinstance(covariance, Tracer)
        given: Any = covariance if traced else np.asarray(covariance, np.float64)
        if given.ndim != 2 or given.shape[0] != given.shape[1]:
            raise ValueError(f"covariance must be square (m, m); got shape {given.shape}.")
        if traced:
            self.std = jnp.sqrt(jnp.diagonal(given))
            self.factor = jnp.linalg.cholesky(given / self.std[:, None] / self.std[None, :])
            return
        std, factor = _factored(given)
        with jax.ensure_compile_time_eval():
            self.std, self.factor = jnp.asarray(std, float), jnp.asarray(factor, float)

    @property
    def covariance(self) -> Float[Array, "m m"]:
        """R."""
        root = self.std[:, None] * self.factor
        return root @ root.T

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        return self.std * (self.factor @ jax.random.normal(key, shape, self.factor.dtype))

    def _factor_of(self, mask: Array | None, dtype: jnp.dtype) -> Array:
        """L of the correlations, whose rows and columns of missing values are those of the identity."""
        whole = self.factor.astype(dtype)
        if mask is None:
            return whole

        def of_rows(whole: Array) -> Array:
            # L Lᵀ = B Bᵀ, B = [rows of L that are there, e_j of the others]
            there = mask.astype(dtype)
            rows = jnp.concatenate([there[:, None] * whole, jnp.diag(1 - there)], axis=1)
            triangle = jnp.linalg.qr(rows.T, mode="r")
            return triangle.T * jnp.sign(jnp.diagonal(triangle))[None]

        def of_correlations(whole: Array) -> Array:  # a tenth of the work
            both = mask[:, None] & mask[None, :]
            return jnp.linalg.cholesky(jnp.where(both, whole @ whole.T, jnp.eye(len(whole), dtype=dtype)))

        def with_gaps(whole: Array) -> Array:
            hard = jax.lax.stop_gradient(self.condition) * float(jnp.finfo(dtype).eps) > _LOST
            return jax.lax.cond(any_of_batch(hard), of_rows, of_correlations, whole)

        return jax.lax.cond(any_of_batch(~mask.all()), with_gaps, lambda whole: whole, whole)

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        valid = jnp.ones(residual.shape, bool) if mask is None else mask
        white, count = self.whiten(residual, mask), valid.sum().astype(residual.dtype)
        constant = 0.5 * math.log(2 * math.pi) * count
        return -0.5 * (white**2).sum() + self.log_scale(residual, valid) - constant

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        scaled = _masked(residual / self.standard_deviation(residual), mask)
        return solve_triangular(self._factor_of(mask, residual.dtype), scaled, lower=True)

    @property
    def diagonal(self) -> bool:
        return False

    @property
    def condition(self) -> Float[Array, ""]:
        """m over the smallest squared pivot of the correlations' Cholesky factor."""
        return len(self.std) / (jnp.diagonal(self.factor) ** 2).min()

    def widened(self, like: Float[Array, "*z"], variance: Float[Array, "*z"]) -> CorrelatedGaussian:
        return CorrelatedGaussian(self.covariance.astype(like.dtype) + jnp.diag(variance))

    def standard_deviation(self, like: Float[Array, "*z"]) -> Float[Array, "*z"]:
        return self.std.astype(like.dtype)

    def log_scale(self, like: Float[Array, "*z"], mask: Bool[Array, "*z"]) -> Float[Array, ""]:
        std = jnp.where(mask, jnp.log(self.standard_deviation(like)), 0.0)
        return -std.sum() - jnp.log(jnp.diagonal(self._factor_of(mask, like.dtype))).sum()


def _factored(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations, and the Cholesky factor of the correlations.

    Raises:
        ValueError: R is not symmetric or not positive definite.
    """
    variances = np.diagonal(covariance)
    if not np.all(variances > 0) or not np.isfinite(covariance).all():
        raise ValueError("covariance of the noise is not positive definite: a variance is not positive.")
    std = np.sqrt(variances)
    correlation = covariance / std[:, None] / std[None, :]
    asymmetry = np.abs(correlation - correlation.T).max()
    if asymmetry > 1e-4:
        raise ValueError(
            f"covariance of the noise is not symmetric: correlations differ by up to {asymmetry:.2g}."
        )
    try:
        return std, np.linalg.cholesky((correlation + correlation.T) / 2)
    except np.linalg.LinAlgError:
        raise ValueError(
            "covariance of the noise is not positive definite: its smallest correlation eigenvalue is "
            f"{np.linalg.eigvalsh(correlation)[0]:.2g}. Remove redundant values, or give it as a NumPy array "
            "of float64 where rounding to float32 made it so."
        ) from None


class Laplace(Noise):
    """ε with density exp(-|ε|/scale)/(2 scale), independent; its variance is 2 scale².

    Args:
        scale: scalar or array of z's shape.
    """

    scale: Float[Array, ...]

    def __init__(self, scale: ArrayLike):
        self.scale = _scale("scale of the noise", scale)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        return self.scale * jax.random.laplace(key, shape, self.scale.dtype)

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        scale = jnp.broadcast_to(self.scale.astype(residual.dtype), residual.shape)
        log_density = -jnp.abs(residual) / scale - jnp.log(2.0 * scale)
        return jnp.where(_known(mask, scale), log_density, 0.0).sum()

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        return _masked(residual / (math.sqrt(2.0) * self.scale.astype(residual.dtype)), mask)


class StudentT(Noise):
    """ε = scale · t with t Student-t of `df` degrees of freedom; variance scale² df/(df-2).

    Args:
        df: degrees of freedom, > 2 so that a covariance exists.
        scale: scalar or array of z's shape.
    """

    df: Float[Array, ""]
    scale: Float[Array, ...]

    def __init__(self, df: float | Float[Array, ""], scale: ArrayLike):
        must = "exceed 2 (no finite variance below); the order is StudentT(df, scale)"
        self.df = number("df", df, "(2, inf)", must=must)
        self.scale = _scale("scale of the noise", scale)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        return self.scale * jax.random.t(key, self.df, shape, self.scale.dtype)

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        scale = jnp.broadcast_to(self.scale.astype(residual.dtype), residual.shape)
        df = self.df.astype(residual.dtype)
        half = 0.5 * (df + 1)
        constant = gammaln(half) - gammaln(0.5 * df) - 0.5 * jnp.log(df * math.pi)
        log_density = constant - jnp.log(scale) - half * jnp.log1p((residual / scale) ** 2 / df)
        return jnp.where(_known(mask, scale), log_density, 0.0).sum()

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        std = jnp.sqrt(self.df / (self.df - 2)) * self.scale
        return _masked(residual / std.astype(residual.dtype), mask)


class Scaled(Noise):
    """scale · ε, ε of another law: its covariance is D R D, D = diag(scale).

    Args:
        noise: the law of ε.
        scale: > 0; scalar, or array of z's shape.
    """

    noise: Noise
    scale: Float[Array, ...]

    def __init__(self, noise: Noise, scale: ArrayLike):
        self.noise, self.scale = noise, _scale("scale of the noise", scale)

    def _as(self, like: Array) -> Array:
        return jnp.broadcast_to(self.scale.astype(like.dtype), like.shape)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        drawn = self.noise.sample(key, shape)
        return self._as(drawn) * drawn

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        scale = self._as(residual)
        known = _known(mask, scale)
        sizes = jnp.where(known, jnp.log(scale), 0.0)
        return self.noise.log_prob(residual / scale, known) - sizes.sum()

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        return self.noise.whiten(residual / self._as(residual), mask)

    @property
    def diagonal(self) -> bool:
        return self.noise.diagonal

    @property
    def condition(self) -> Float[Array, ""] | float:
        return self.noise.condition

    @property
    def depends_on_value(self) -> bool:
        return self.noise.depends_on_value

    def at(self, value: Float[Array, "*z"]) -> Scaled:
        return Scaled(self.noise.at(value), self.scale)

    def widened(self, like: Float[Array, "*z"], variance: Float[Array, "*z"]) -> Scaled:
        return Scaled(self.noise.widened(like, variance / self._as(like) ** 2), self.scale)

    def standard_deviation(self, like: Float[Array, "*z"]) -> Float[Array, "*z"]:
        return self._as(like) * self.noise.standard_deviation(like)

    def log_scale(self, like: Float[Array, "*z"], mask: Bool[Array, "*z"]) -> Float[Array, ""]:
        known = _known(mask, self._as(like))
        own = jnp.where(known, jnp.log(self._as(like)), 0.0).sum()
        return self.noise.log_scale(like, known) - own


def as_noise(given: Any) -> Noise:
    """A noise law as it is.

    Raises:
        ValueError: something else, with what to write instead.
    """
    if isinstance(given, Noise):
        return given
    kind = f"the class {given.__name__}" if isinstance(given, type) else repr(given)[:60]
    raise ValueError(f"noise must be a law such as measurements.Gaussian(std); got {kind}.")
