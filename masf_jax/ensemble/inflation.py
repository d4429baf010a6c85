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

from ..derivatives import root_or_zero
from ..numbers import number, shown, within
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
    spread_f = root_or_zero(member_mean(anomalies(forecast)[1] ** 2))
    spread_a = root_or_zero(member_mean(deviations**2))
    positive = spread_a > 0
    ratio = jnp.where(positive, (spread_f - spread_a) / jnp.where(positive, spread_a, 1.0), 0.0)
    return recentre(mean, deviations * (1.0 + alpha.astype(analysis.dtype) * ratio)[None])


class AdaptiveState(NamedTuple):
    """Current estimate of the variance inflation λ and the variance of that estimate."""

    factor: Float[Array, ""]
    variance: Float[Array, ""]


class AdaptiveInflation(eqx.Module):
    """Forecast-variance inflation λ estimated from innovations, by a scalar Kalman filter in time.

    Each cycle's own estimate is λ_o = (|d|² - m)/T, T = tr(S Sᵀ), d and S whitened innovation and anomalies
    (Wang & Bishop 2003), with sampling variance v_o = (2/m)((λ T + m)/T)²; it is combined with the running
    one as in Miyoshi (2011, doi 10.1175/2010MWR3570.1). In between λ goes back to `mean`,

        λ ← mean + φ (λ - mean),   v ← φ² v + (1 - φ²)(std² + (λ - mean)²),   φ = exp(-1/memory).

    Where the forecast is sure, T ≪ m, innovations say nothing of λ within any memory (v_o ≈ 2m/T²): it
    stays near `mean`, what sampling errors ask for. Where they do speak, λ follows them: v's last term,
    a tail heavier than a normal law's, lets it go as far as model errors ask. Anomalies are multiplied by
    √λ, clipped to [lower, upper].

    Args:
        mean: of λ, where nothing is known.
        std: of λ about its mean, where nothing is known.
        memory: cycles, > 0.
        lower, upper: bounds of λ.
    """

    mean: Float[Array, ""] = eqx.field(converter=within("adaptive mean", "(0, inf)"), default=1.06)
    std: Float[Array, ""] = eqx.field(converter=within("adaptive std", "[0, inf)"), default=0.1)
    memory: Float[Array, ""] = eqx.field(converter=within("adaptive memory", "(0, inf]"), default=100.0)
    lower: Float[Array, ""] = eqx.field(converter=within("adaptive lower", "[0, inf]"), default=0.9)
    upper: Float[Array, ""] = eqx.field(converter=within("adaptive upper", "[0, inf]"), default=10.0)

    def __check_init__(self) -> None:
        bounds = self.lower, self.upper
        if not any(isinstance(bound, Tracer) for bound in bounds) and float(self.lower) > float(self.upper):
            raise ValueError(
                f"adaptive lower must not exceed upper; got {shown(self.lower)} and {shown(self.upper)}."
            )

    def init(self, dtype: jnp.dtype) -> AdaptiveState:
        mean, std, lower, upper = (x.astype(dtype) for x in (self.mean, self.std, self.lower, self.upper))
        return AdaptiveState(jnp.clip(mean, lower, upper), std**2)

    def update(
        self, state: AdaptiveState, innovations: Float[Array, "N m"], n_valid: Float[Array, ""]
    ) -> AdaptiveState:
        """The estimate after one cycle's whitened innovations (rows: R^{-1/2}(z - H(x_i)))."""
        d, deviations = anomalies(innovations)
        total = (deviations**2).sum() / (innovations.shape[0] - 1)
        mean, std, lower, upper = (
            x.astype(total.dtype) for x in (self.mean, self.std, self.lower, self.upper)
        )
        kept, away = jnp.exp(-1 / self.memory.astype(total.dtype)), state.factor - mean
        factor = mean + kept * away
        variance = kept**2 * state.variance + (1 - kept**2) * (std**2 + away**2)
        # λ_o and v_o times T and T²: an ensemble without spread, T = 0, tells nothing of λ
        observed = (d**2).sum() - n_valid
        observed_variance = 2.0 / n_valid * (factor * total + n_valid) ** 2
        weight = variance * total / (variance * total**2 + observed_variance)
        found = jnp.clip(factor + weight * (observed - factor * total), lower, upper)
        return AdaptiveState(found, (1.0 - weight * total) * variance)


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
            if self.additive.shape not in ((), analysis.shape[1:]):
                raise ValueError(
                    f"additive inflation must be one number or of the state's shape {analysis.shape[1:]}; "
                    f"got shape {self.additive.shape}."
                )
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
