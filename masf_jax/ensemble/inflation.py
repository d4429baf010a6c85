"""Inflation: what keeps an ensemble's spread honest."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from ..numbers import number, within
from .statistics import anomalies, member_mean, recentre

__all__ = ["AdaptiveInflation", "Inflation", "multiplicative", "rtpp", "rtps"]


def multiplicative(ensemble: Float[Array, "N *x"], factor: Float[Array, ""]) -> Float[Array, "N *x"]:
    """Anomalies multiplied by `factor`, the mean kept."""
    mean, deviations = anomalies(ensemble)
    return recentre(mean, factor.astype(ensemble.dtype) * deviations)


def rtpp(
    forecast: Float[Array, "N *x"], analysis: Float[Array, "N *x"], alpha: Float[Array, ""]
) -> Float[Array, "N *x"]:
    """Relaxation to prior perturbations: X_a ← (1-α) X_a + α X_f (Zhang, Snyder & Sun 2004)."""
    alpha = alpha.astype(analysis.dtype)
    mean, deviations = anomalies(analysis)
    return recentre(mean, (1.0 - alpha) * deviations + alpha * anomalies(forecast)[1])


def rtps(
    forecast: Float[Array, "N *x"], analysis: Float[Array, "N *x"], alpha: Float[Array, ""]
) -> Float[Array, "N *x"]:
    """Relaxation to prior spread: X_a ← X_a (1 + α (σ_f - σ_a)/σ_a) (Whitaker & Hamill 2012, eq. 2)."""
    mean, deviations = anomalies(analysis)
    spread_f = jnp.sqrt(member_mean(anomalies(forecast)[1] ** 2))
    spread_a = jnp.sqrt(member_mean(deviations**2))
    positive = spread_a > 0
    ratio = jnp.where(positive, (spread_f - spread_a) / jnp.where(positive, spread_a, 1.0), 0.0)
    return recentre(mean, deviations * (1.0 + alpha.astype(analysis.dtype) * ratio)[None])


class AdaptiveState(NamedTuple):
    """Current estimate of the variance inflation λ and the variance of that estimate."""

    factor: Float[Array, ""]
    variance: Float[Array, ""]


class AdaptiveInflation(eqx.Module):
    """Forecast-variance inflation λ estimated from innovations, by a scalar Kalman filter in time.

    Each cycle's own estimate is λ_o = (|d|² - m)/tr(S Sᵀ), d and S whitened innovation and
    anomalies (Wang & Bishop 2003), with sampling variance v_o = (2/m)((λ T + m)/T)², T = tr(S Sᵀ);
    it is combined with the running estimate (variance v, growing by `growth` a cycle) as in
    Miyoshi (2011, doi 10.1175/2010MWR3570.1). Anomalies are multiplied by √λ, clipped to [lower, upper].
    """

    variance: Float[Array, ""] = eqx.field(converter=within("adaptive variance", "[0, inf]"), default=0.04**2)
    growth: Float[Array, ""] = eqx.field(converter=within("adaptive growth", "[0, inf]"), default=1.03)
    lower: Float[Array, ""] = eqx.field(converter=within("adaptive lower", "[0, inf]"), default=0.9)
    upper: Float[Array, ""] = eqx.field(converter=within("adaptive upper", "[0, inf]"), default=10.0)

    def init(self, dtype: jnp.dtype) -> AdaptiveState:
        return AdaptiveState(jnp.ones((), dtype), self.variance.astype(dtype))

    def update(
        self, state: AdaptiveState, innovations: Float[Array, "N m"], n_valid: Float[Array, ""]
    ) -> AdaptiveState:
        """The estimate after one cycle's whitened innovations (rows: R^{-1/2}(z - H(x_i)))."""
        mean, deviations = anomalies(innovations)
        total = (deviations**2).sum() / (innovations.shape[0] - 1)
        # λ_o and v_o times T and T²: an ensemble without spread, T = 0, tells nothing of λ
        observed = (mean**2).sum() - n_valid
        observed_variance = 2.0 / n_valid * (state.factor * total + n_valid) ** 2
        prior_variance = state.variance * self.growth.astype(total.dtype)
        weight = prior_variance * total / (prior_variance * total**2 + observed_variance)
        factor = state.factor + weight * (observed - state.factor * total)
        gain = weight * total
        clipped = jnp.clip(factor, self.lower.astype(factor.dtype), self.upper.astype(factor.dtype))
        # The estimate never becomes surer than a tenth of its initial variance: it must keep adapting.
        floor = 0.1 * self.variance.astype(total.dtype)
        return AdaptiveState(clipped, jnp.maximum((1.0 - gain) * prior_variance, floor))


class Inflation(eqx.Module):
    """Which inflations a filter applies; None switches one off (no cost).

    Order: adaptive and `prior` act on the forecast before the update; after it RTPP, RTPS,
    `multiplicative`, and additive noise.

    Args:
        multiplicative: factor > 0 on analysis anomalies (as in the Lorenz-96 literature and DAPPER).
        prior: factor > 0 on forecast anomalies.
        rtps, rtpp: relaxation α in [0, 1].
        additive: standard deviation (scalar or state-shaped) of independent noise added to each analysis
            member, mean removed.
        adaptive: estimate forecast inflation from the innovations.
    """

    multiplicative: Float[Array, ""] | None = None
    prior: Float[Array, ""] | None = None
    rtps: Float[Array, ""] | None = None
    rtpp: Float[Array, ""] | None = None
    additive: Float[Array, ...] | None = None
    adaptive: AdaptiveInflation | None = None

    def __init__(
        self,
        multiplicative: float | None = None,
        prior: float | None = None,
        rtps: float | None = None,
        rtpp: float | None = None,
        additive: ArrayLike | None = None,
        adaptive: AdaptiveInflation | bool = False,
    ):
        self.multiplicative = _unless(1.0, "multiplicative inflation", multiplicative, "(0, inf]")
        self.prior = _unless(1.0, "prior inflation", prior, "(0, inf]")
        self.rtps = _unless(0.0, "rtps", rtps, "[0, 1.0]")
        self.rtpp = _unless(0.0, "rtpp", rtpp, "[0, 1.0]")
        self.additive = _unless(0.0, "additive inflation", additive)
        self.adaptive = AdaptiveInflation() if adaptive is True else (adaptive or None)

    def init(self, dtype: jnp.dtype) -> AdaptiveState | None:
        """Memory carried from cycle to cycle."""
        return None if self.adaptive is None else self.adaptive.init(dtype)

    def before(
        self,
        x: Float[Array, "N *x"],
        memory: AdaptiveState | None,
        innovations: Float[Array, "N m"],
        n_valid: Array,
    ) -> tuple[Float[Array, "N *x"], AdaptiveState | None]:
        """The forecast, inflated before the update."""
        if self.adaptive is not None and memory is not None:
            memory = self.adaptive.update(memory, innovations, n_valid)
            x = multiplicative(x, jnp.sqrt(memory.factor))
        return (x if self.prior is None else multiplicative(x, self.prior)), memory

    @property
    def changes_forecast(self) -> bool:
        return self.adaptive is not None or self.prior is not None

    def after(
        self, key: PRNGKeyArray, forecast: Float[Array, "N *x"], analysis: Float[Array, "N *x"]
    ) -> Float[Array, "N *x"]:
        """The analysis, inflated after the update; `forecast` is the one before any inflation."""
        if self.rtpp is not None:
            analysis = rtpp(forecast, analysis, self.rtpp)
        if self.rtps is not None:
            analysis = rtps(forecast, analysis, self.rtps)
        if self.multiplicative is not None:
            analysis = multiplicative(analysis, self.multiplicative)
        if self.additive is not None:
            noise = jax.random.normal(key, analysis.shape, analysis.dtype)
            scale = jnp.broadcast_to(self.additive.astype(analysis.dtype), analysis.shape[1:])
            analysis = analysis + anomalies(scale[None] * noise)[1]
        return analysis


def _unless(neutral: float, name: str, value: ArrayLike | None, interval: str = "[0, inf]") -> Array | None:
    """The checked number; None where it would do nothing."""
    if value is None:
        return None
    checked = number(name, value, interval)
    return None if not isinstance(value, Tracer) and np.all(np.asarray(value) == neutral) else checked
