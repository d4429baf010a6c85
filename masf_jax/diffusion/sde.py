"""The stochastic and ordinary differential equations of a process, with Diffrax's solvers.

A process remembers v_0 through the signal-to-noise ratio λ = g²/s² of each component alone: backwards in
diffusion time the *information* Y = g v/s² is a Brownian motion with drift v_0 in the clock λ,

    Y = λ v_0 + W(λ),   hence   dY = D dλ + dW(λ),   D = E[v_0 | Y],

which is the reverse equation dv = [-F v + G² ∇log p_t] dτ + G dw̄, τ = 1 - t, in other coordinates. No
coefficient is singular here: where nothing is measured F → -∞ at t = 1, but λ = Y = 0; at t → 0 only the
clock runs away. And every component has a clock of its own: along *any* increasing path of the map λ the
equation is exact, as denoisers take maps of noise levels. So between two times of a grid λ moves on a
straight line, r ∈ [0, 1] from one to the other, and a solver makes one step of it. An Euler step then is
the plain step of `bridge`.

At the last positive time one step of the denoiser is left, as in `bridge`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..denoisers.base import Denoiser
from .process import Process

__all__ = ["forward_sde", "forward_terms", "probability_flow", "reverse_sde", "reverse_terms"]


def forward_terms(process: Process, brownian: diffrax.AbstractBrownianPath) -> diffrax.MultiTerm:
    """dv = F v dt + G dw, in diffusion time t, for v in the process's coordinates (see `Process.rates`)."""

    def drift(t: Scalar, v: Array, args: None) -> Array:
        return process.rates(t)[0] * v

    def diffusion(t: Scalar, v: Array, args: None) -> lineax.DiagonalLinearOperator:
        return lineax.DiagonalLinearOperator(process.rates(t)[1])

    return _terms(drift, diffusion, brownian)


def forward_sde(
    key: PRNGKeyArray,
    process: Process,
    v0: Float[Array, "*v"],
    times: Float[Array, " n_times"],
    solver: diffrax.AbstractSolver | None = None,
) -> Float[Array, "*v"]:
    """A draw of v_t given v_0 for t = times[-1], by simulation; `Process.noised` draws from its exact law.

    Args:
        times: diffusion times, increasing from times[0], where v is v0; below 1 where nothing is measured,
            as F → -∞ there.
        solver: a Diffrax solver for additive noise; None: `diffrax.Heun()`.
    """
    solver = diffrax.Heun() if solver is None else solver
    times = times.astype(v0.dtype)
    solution = diffrax.diffeqsolve(
        forward_terms(process, _brownian(key, v0, solver)),
        solver,
        times[0],
        times[-1],
        None,
        v0,
        stepsize_controller=diffrax.StepTo(times),
        adjoint=diffrax.ForwardMode(),
        max_steps=times.size,
    )
    assert solution.ys is not None
    return solution.ys[-1]


class _Segment(NamedTuple):
    """A straight piece of the path of λ (or of ρ), r ∈ [0, 1], with its ends' diffusion times."""

    start: Array
    change: Array
    t0: Scalar
    t1: Scalar

    def at(self, r: Scalar) -> Array:
        return self.start + r * self.change

    def time(self, r: Scalar) -> Scalar:
        return self.t0 + r * (self.t1 - self.t0)


def reverse_terms(
    process: Process,
    denoiser: Denoiser,
    brownian: diffrax.AbstractBrownianPath,
    t0: Scalar,
    t1: Scalar,
    start: Float[Array, "*v"],
    score_scale: Callable[[Scalar], Scalar] | None = None,
    guidance_scale: Callable[[Scalar], Scalar] | None = None,
) -> diffrax.MultiTerm:
    """The reverse equation for the information Y from t0 to t1 < t0, in r ∈ [0, 1].

        dY = [D + (1 - c_s)(Y/λ - D) + c_g (Y_1 - Y λ_1/λ)/(λ - λ_1)] Δλ dr + √Δλ dW(r),

    λ = λ(t0) + r Δλ; that is, dv = [-F v + G² (c_s ∇log p_t + c_g ∇log p(z | v))] dτ + G dw̄.

    Args:
        start: v_1, which the denoiser is given where Y cannot tell (λ = 0).
        score_scale, guidance_scale: c_s(t) and c_g(t); None: 1 and 0, the exact sampler.
    """
    lam0 = _snr(process, t0)
    segment = _Segment(lam0, _snr(process, t1) - lam0, t0, t1)
    one = jnp.ones_like(t0)
    blind = process.rescaled(start, one)
    lam1, info1 = _snr(process, one), _information(process, process.measured, one)

    def drift(r: Scalar, info: Array, args: None) -> Array:
        lam, t = segment.at(r), segment.time(r)
        mean = denoiser(*_seen(info, lam, blind))
        total = mean
        if score_scale is not None:
            total += (1 - score_scale(t)) * (info / lam - mean)
        if guidance_scale is not None:
            total += guidance_scale(t) * (info1 - info * lam1 / lam) / (lam - lam1)
        return total * segment.change

    def diffusion(r: Scalar, info: Array, args: None) -> lineax.DiagonalLinearOperator:
        return lineax.DiagonalLinearOperator(jnp.sqrt(jnp.maximum(segment.change, 0.0)))

    return _terms(drift, diffusion, brownian)


def reverse_sde(
    key: PRNGKeyArray,
    process: Process,
    denoiser: Denoiser,
    times: Float[Array, " n_times"],
    solver: diffrax.AbstractSolver | None = None,
    corrected: bool = True,
    start: Float[Array, "*v"] | None = None,
    score_scale: Callable[[Scalar], Scalar] | None = None,
    guidance_scale: Callable[[Scalar], Scalar] | None = None,
) -> Float[Array, "*v"]:
    """A draw of v_0 given v_1 = the measurement, as `bridge`, with K - 1 steps of a Diffrax solver.

    Exact for the exact denoiser in the limit of many steps: moments to first order in the step with `Euler`
    and `SEA`, to second with `Heun`, `SRA1` and `ShARK`. `SEA` and `ShARK` show the denoiser values
    that the process does not produce at that noise level, which suits closed-form denoisers, not networks.
    With scales it is the paper's guided equation, which is not exact (see `guided`).

    Args:
        times: diffusion times from times[0] down to 0 (see `time_grid`).
        solver: a Diffrax solver for additive noise; None: `diffrax.Heun()`.
        corrected: the last step draws x0 (see `bridge`); else it is the mean.
        start: v at times[0]; None: the measurement, for times[0] = 1.
        score_scale, guidance_scale: c_s(t) and c_g(t); None: 1 and 0. With either, times[0] must be below 1.
    """
    solver = diffrax.Heun() if solver is None else solver
    key_start, key_noise, key_last = jax.random.split(key, 3)
    start = process.endpoint(key_start) if start is None else start
    times = times.astype(start.dtype)

    def step(carry: tuple[Array, PRNGKeyArray], ends: Array) -> tuple[tuple[Array, PRNGKeyArray], None]:
        info, key = carry
        key, key_step = jax.random.split(key)
        brownian = _brownian(key_step, info, solver)
        terms = reverse_terms(
            process, denoiser, brownian, ends[0], ends[1], start, score_scale, guidance_scale
        )
        return (_one_step(terms, solver, info), key), None

    first = _information(process, start, times[0])
    (info, _), _ = jax.lax.scan(step, (first, key_noise), jnp.stack([times[:-2], times[1:-1]], 1))
    seen = _seen(info, _snr(process, times[-2]), process.rescaled(start, times[0]))
    return denoiser.sample(key_last, *seen) if corrected else denoiser(*seen)


def probability_flow(
    key: PRNGKeyArray,
    process: Process,
    denoiser: Denoiser,
    times: Float[Array, " n_times"],
    solver: diffrax.AbstractSolver | None = None,
    corrected: bool = True,
    controller: diffrax.AbstractStepSizeController | None = None,
) -> Float[Array, "*v"]:
    """A draw of v_0 given v_1 = the measurement, by the probability flow of the process *conditioned* on v_1.

    The flow of the unconditioned process, dv = [-F v + ½ G² ∇log p_t] dτ, keeps p_t, not p_t(· | v_1):
    started at the measurement it is a deterministic map of it, with no spread where all is measured.
    Conditioning adds G² ∇log p(z | v) to the forward drift, so that

        dv = [-F v + ½ G² (∇log p_t - ∇log p(z | v))] dτ,

    which is singular at t = 1. With ρ = √(λ(t) - λ(1)), what v_t tells of v_0 beyond v_1, and
    y = (Y - Y_1)/ρ = ρ v_0 + noise it is

        dy = D dρ,   y ~ N(0, I) at ρ = 0:

    regular, with an exact start, and right along any increasing path of the map ρ. All randomness is that of
    y. Exact for the exact denoiser in the limit of many steps.

    Args:
        times: diffusion times from 1 down to 0.
        solver: a Diffrax solver of ordinary differential equations; None: `diffrax.Heun()`.
        corrected: the last step draws x0 (see `bridge`); else it is the mean.
        controller: None: the solver steps to `times`; else it chooses its own steps from ρ = 0 straight to
            the ρ of times[-2], for example `diffrax.PIDController(rtol=1e-3, atol=1e-3)`.
    """
    solver = diffrax.Heun() if solver is None else solver
    key_start, key_noise, key_last = jax.random.split(key, 3)
    v1 = process.endpoint(key_start)
    times = times.astype(v1.dtype)
    one = jnp.ones_like(times[0])
    lam1, info1 = _snr(process, one), _information(process, v1, one)

    def rho(t: Scalar) -> Array:
        return jnp.sqrt(jnp.maximum(_snr(process, t) - lam1, 0.0))

    def seen(y: Array, now: Array) -> tuple[Array, Array]:
        return _seen(info1 + now * y, lam1 + now**2, y)

    def term(t0: Scalar, t1: Scalar) -> diffrax.ODETerm:
        start = rho(t0)
        segment = _Segment(start, rho(t1) - start, t0, t1)

        def drift(r: Any, y: Array, args: None) -> Array:
            return denoiser(*seen(y, segment.at(r))) * segment.change

        return diffrax.ODETerm(drift)

    noise = jax.random.normal(key_noise, v1.shape, v1.dtype)
    if controller is None:

        def step(y: Array, ends: Array) -> tuple[Array, None]:
            return _one_step(term(ends[0], ends[1]), solver, y), None

        y, _ = jax.lax.scan(step, noise, jnp.stack([times[:-2], times[1:-1]], 1))
    else:
        solution = diffrax.diffeqsolve(
            term(times[0], times[-2]), solver, 0.0, 1.0, None, noise, stepsize_controller=controller
        )
        assert solution.ys is not None
        y = solution.ys[-1]
    x, angle = seen(y, rho(times[-2]))
    return denoiser.sample(key_last, x, angle) if corrected else denoiser(x, angle)


def _snr(process: Process, t: Scalar) -> Array:
    return (process.gain(t) / process.std(t)) ** 2


def _information(process: Process, v: Array, t: Scalar) -> Array:
    return process.gain(t) / process.std(t) ** 2 * v


def _seen(info: Array, lam: Array, blind: Array) -> tuple[Array, Array]:
    """What a denoiser is given: cos φ · v_0 + sin φ · η and φ, with cot φ = √λ; `blind` where λ = 0."""
    known = lam > jnp.finfo(lam.dtype).eps ** 2
    root = jnp.sqrt(jnp.where(known, lam, 1.0))
    x = jnp.where(known, info / (root * jnp.hypot(1.0, root)), blind)
    return x, jnp.arctan2(jnp.ones_like(lam), jnp.where(known, root, 0.0))


def _brownian(key: PRNGKeyArray, like: Array, solver: diffrax.AbstractSolver) -> diffrax.AbstractBrownianPath:
    """A path for fixed steps, with the Lévy area that the solver asks for."""
    least = getattr(solver, "minimal_levy_area", diffrax.AbstractBrownianIncrement)
    space_time = issubclass(least, diffrax.AbstractSpaceTimeLevyArea)
    area = diffrax.SpaceTimeLevyArea if space_time else diffrax.BrownianIncrement
    return diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(like.shape, like.dtype), key, levy_area=area)


def _terms(
    drift: Callable[..., Array],
    diffusion: Callable[..., lineax.DiagonalLinearOperator],
    brownian: diffrax.AbstractBrownianPath,
) -> diffrax.MultiTerm:
    return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, brownian))


def _one_step(terms: diffrax.AbstractTerm, solver: diffrax.AbstractSolver, y: Array) -> Array:
    """One step of the solver over r ∈ [0, 1]; what it remembers of an earlier segment would not apply."""
    zero, one = jnp.zeros((), y.dtype), jnp.ones((), y.dtype)
    state = solver.init(terms, zero, one, y, None)
    return solver.step(terms, zero, one, y, None, state, made_jump=False)[0]
