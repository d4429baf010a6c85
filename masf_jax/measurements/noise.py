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

from ..numbers import number

__all__ = ["CorrelatedGaussian", "Gaussian", "Laplace", "Noise", "StudentT", "as_noise"]


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

    def standard_deviation(self, like: Float[Array, "*z"]) -> Float[Array, "*z"]:
        """Standard deviation of each value's error, for a measurement of the shape and type of `like`.

        Here 1 / (R^{-1/2} 1), which holds where R is diagonal.
        """
        return 1.0 / self.whiten(jnp.ones_like(like))

    def log_scale(self, like: Float[Array, "*z"], mask: Bool[Array, "*z"]) -> Float[Array, ""]:
        """log |R^{-1/2}| of the values that are True in `mask`, for a measurement of the shape of `like`.

        Here -Σ log std, which holds where R is diagonal.
        """
        return -jnp.where(mask, jnp.log(self.standard_deviation(like)), 0.0).sum()


def _scale(name: str, value: ArrayLike) -> Float[Array, ...]:
    return number(name, value, "(0, inf]", everywhere=True)


def _masked(values: Array, mask: Array | None) -> Array:
    return values if mask is None else jnp.where(mask, values, 0.0)


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
        return _masked(log_density, mask).sum()

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        return _masked(residual / self.std.astype(residual.dtype), mask)


class CorrelatedGaussian(Noise):
    """ε ~ N(0, R) with a full covariance over a vector measurement.

    A missing value is marginalised exactly: its row and column of R become those of the identity.

    Args:
        covariance: R, symmetric positive definite (m, m).
    """

    covariance: Float[Array, "m m"]
    cholesky: Float[Array, "m m"]

    def __init__(self, covariance: ArrayLike):
        self.covariance = jnp.asarray(covariance, dtype=float)
        if self.covariance.ndim != 2 or self.covariance.shape[0] != self.covariance.shape[1]:
            raise ValueError(f"covariance must be square (m, m); got shape {self.covariance.shape}.")
        if isinstance(self.covariance, Tracer):
            self.cholesky = jnp.linalg.cholesky(self.covariance)
            return
        given = np.asarray(self.covariance, np.float64)
        variances = np.diagonal(given)
        if not np.all(variances > 0) or not np.isfinite(given).all():
            raise ValueError("covariance of the noise is not positive definite: a variance is not positive.")
        scale = np.sqrt(variances)
        correlation = given / scale[:, None] / scale[None, :]
        asymmetry = np.abs(correlation - correlation.T).max()
        if asymmetry > 1e-4:
            raise ValueError(
                f"covariance of the noise is not symmetric: correlations differ by up to {asymmetry:.2g}."
            )
        try:
            factor = scale[:, None] * np.linalg.cholesky((correlation + correlation.T) / 2)
        except np.linalg.LinAlgError:
            raise ValueError(
                "covariance of the noise is not positive definite: its smallest correlation eigenvalue is "
                f"{np.linalg.eigvalsh(correlation)[0]:.2g}. Remove redundant values, or use "
                "precision=float64 where rounding to float32 made it so."
            ) from None
        with jax.ensure_compile_time_eval():
            self.cholesky = jnp.asarray(factor, self.covariance.dtype)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        return self.cholesky @ jax.random.normal(key, shape, self.cholesky.dtype)

    def _factor(self, mask: Array | None, dtype: jnp.dtype) -> Array:
        if mask is None:
            return self.cholesky.astype(dtype)
        both = mask[:, None] & mask[None, :]
        eye = jnp.eye(mask.shape[0], dtype=dtype)
        return jnp.linalg.cholesky(jnp.where(both, self.covariance.astype(dtype), eye))

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        factor = self._factor(mask, residual.dtype)
        white = solve_triangular(factor, _masked(residual, mask), lower=True)
        count = residual.size if mask is None else mask.sum().astype(residual.dtype)
        log_det = jnp.log(jnp.diagonal(factor)).sum()
        return -0.5 * (white**2).sum() - log_det - 0.5 * math.log(2 * math.pi) * count

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        factor = self._factor(mask, residual.dtype)
        return solve_triangular(factor, _masked(residual, mask), lower=True)

    @property
    def diagonal(self) -> bool:
        return False

    @property
    def condition(self) -> Float[Array, ""]:
        """m over the smallest squared pivot of the correlations' Cholesky factor."""
        variances = jnp.diagonal(self.covariance)
        pivots = jnp.diagonal(self.cholesky) ** 2 / variances
        return len(variances) / pivots.min()

    def standard_deviation(self, like: Float[Array, "*z"]) -> Float[Array, "*z"]:
        return jnp.sqrt(jnp.diagonal(self.covariance)).astype(like.dtype)

    def log_scale(self, like: Float[Array, "*z"], mask: Bool[Array, "*z"]) -> Float[Array, ""]:
        return -jnp.log(jnp.diagonal(self._factor(mask, like.dtype))).sum()


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
        return _masked(-jnp.abs(residual) / scale - jnp.log(2.0 * scale), mask).sum()

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
        return _masked(log_density, mask).sum()

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        std = jnp.sqrt(self.df / (self.df - 2)) * self.scale
        return _masked(residual / std.astype(residual.dtype), mask)


def as_noise(given: Any) -> Noise:
    """A noise law as it is.

    Raises:
        ValueError: something else, with what to write instead.
    """
    if isinstance(given, Noise):
        return given
    kind = f"the class {given.__name__}" if isinstance(given, type) else repr(given)[:60]
    raise ValueError(f"noise must be a law such as measurements.Gaussian(std); got {kind}.")
