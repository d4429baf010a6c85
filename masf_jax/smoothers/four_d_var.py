"""Strong-constraint 4D-Var: the initial state whose model trajectory fits all measurements."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..dynamics.base import Dynamics
from ..measurements.measurement import Measurement, Observations
from ..numbers import number

__all__ = ["FourDVar", "Variational"]


class Variational(NamedTuple):
    """What 4D-Var finds.

    Attributes:
        start: x0, the state at step 0; trajectory: the states at the measurements' steps.
        cost: J there; background_cost: its first term.
        gradient_norm: |∇J| in the control v.
        iterations: L-BFGS steps taken.
    """

    start: Float[Array, "*state"]
    trajectory: Float[Array, "K *state"]
    cost: Float[Array, ""]
    background_cost: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    iterations: Int[Array, ""]


class ModelErrorWarning(UserWarning):
    """4D-Var with strong constraint was given a model with error."""


class FourDVar(eqx.Module):
    """Minimises J(x0) = ½|x0 - x_b|²_{B⁻¹} + ½ Σ_k |R^{-1/2}(z_k - H(M_k x0))|² over x0 = x_b + B^{1/2} v.

    J is a function of v, in which the first term is ½|v|²; its gradient is that of the JAX program (the exact
    adjoint), with one cycle of model steps recomputed at a time. Minimised by Optax's L-BFGS with a zoom line
    search. The model is taken as perfect: model error is left out (`Dynamics.mean_step`), and warned of. Any
    law of noise counts as a Gaussian of its covariance; one that depends on H(x) is fixed on the background's
    trajectory.

    In a linear-Gaussian problem x0 is the exact posterior mean. In a chaotic one J has more minima, the more
    the longer the window is against the time of error growth.

    Where J is convex, x0 is at most |∇J| background deviations from the minimum (its Hessian in v is I and
    more), which gives `tolerance` its meaning.

    Source: Le Dimet & Talagrand (1986), Tellus A 38; control variable: Lorenc (2003).

    Args:
        std: background standard deviation, a scalar or of the state's shape: B = diag(std²).
        columns: instead of it, B = Σ_i c_i c_iᵀ with c = (C, *state): anomalies of an ensemble over √(N - 1),
            or the columns of a square root (`Lᵀ.reshape(n, *state)` of a Cholesky factor L).
        iterations: at most so many.
        tolerance: ends when |∇J| is below this.
        history: pairs of steps and gradients that L-BFGS keeps.
    """

    std: Float[Array, "..."] | None
    columns: Float[Array, "C *state"] | None
    tolerance: Float[Array, ""]
    iterations: int = eqx.field(static=True)
    history: int = eqx.field(static=True)

    def __init__(
        self,
        std: ArrayLike | float | None = None,
        columns: ArrayLike | None = None,
        iterations: int = 100,
        tolerance: float = 1e-3,
        history: int = 10,
    ):
        if (std is None) == (columns is None):
            raise ValueError("4D-Var needs the background's covariance once: give either std or columns.")
        if iterations < 1 or history < 1:
            raise ValueError(
                f"iterations and history must be at least 1; got iterations={iterations}, history={history}."
            )
        name = "the background's std"
        self.std = None if std is None else number(name, std, "(0, inf]", everywhere=True)
        self.columns = None if columns is None else jnp.asarray(columns, dtype=float)
        self.tolerance = jnp.asarray(tolerance, dtype=float)
        self.iterations, self.history = iterations, history

    def __call__(
        self,
        background: Float[Array, "*state"],
        dynamics: Dynamics,
        measurement: Measurement,
        observations: Observations,
    ) -> Variational:
        """The minimum found from v = 0; compiled, and fit for `jax.vmap`.

        Args:
            background: x_b, at step 0.
            observations: see `Observations`; a gap in the middle counts for nothing, steps may be irregular.

        Raises:
            ValueError: shapes that do not fit, or irregular steps that are traced.
        """
        background = jnp.asarray(background)
        shape = dynamics.state_shape
        if background.shape != shape:
            raise ValueError(f"background must be one state of shape {shape}; got {background.shape}.")
        for name, given, fits in (
            ("std", self.std, self.std is None or self.std.shape in ((), shape)),
            ("columns", self.columns, self.columns is None or self.columns.shape[1:] == shape),
        ):
            if not fits and given is not None:
                raise ValueError(f"{name} must fit states of shape {shape}; got {given.shape}.")
        expected = measurement.output_shape(shape)
        if observations.values.shape[1:] != expected:
            raise ValueError(
                f"observations have shape {observations.values.shape[1:]} per cycle, but the measurement of "
                f"a state of shape {shape} has shape {expected}."
            )
        measurement.check_noise(shape)
        if isinstance(observations.steps, Tracer) and observations.interval is None:
            raise ValueError(
                "irregular steps must be known when 4D-Var is compiled: pass the observations from outside "
                "jit, or steps as a number."
            )
        if dynamics.step_noise_variance is not None:
            warnings.warn(
                f"4D-Var takes the model as perfect: the error of {type(dynamics).__name__} is left out, and "
                "x0 is not the posterior mode of the model with it (smoothers.enks is for such models).",
                ModelErrorWarning,
                stacklevel=2,
            )
        longest = observations.interval or int(np.diff(np.asarray(observations.steps), prepend=0).max())
        return _minimised(self, background, dynamics, measurement, observations, longest)

    def start(self, background: Float[Array, "*state"], v: Float[Array, "..."]) -> Float[Array, "*state"]:
        """x_b + B^{1/2} v."""
        if self.columns is not None:
            return background + jnp.tensordot(v, self.columns.astype(v.dtype), 1)
        assert self.std is not None
        return background + self.std.astype(v.dtype) * v


def _trajectory(dynamics: Dynamics, start: Array, steps: Array, longest: int) -> Float[Array, "K *state"]:
    """States at `steps`, at most `longest` apart; one cycle's model steps are recomputed in the adjoint."""

    @jax.checkpoint
    def cycle(x: Array, first: Array, last: Array) -> Array:
        def one(j: Array, x: Array) -> Array:
            time = (first + j).astype(dynamics.dt.dtype) * dynamics.dt
            return jnp.where(first + j < last, dynamics.mean_step(x, time.astype(x.dtype)), x)

        return jax.lax.fori_loop(0, longest, one, x)

    def body(x: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        x = cycle(x, *ends)
        return x, x

    before = jnp.concatenate([jnp.zeros((1,), steps.dtype), steps[:-1]])
    return jax.lax.scan(body, start, (before, steps))[1]


@eqx.filter_jit
def _minimised(
    problem: FourDVar,
    background: Array,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    longest: int,
) -> Variational:
    dtype = background.dtype
    values = observations.values.astype(dtype)
    around = _trajectory(dynamics, background, observations.steps, longest)
    values_around = jax.vmap(measurement.operator)(around)

    def misfit(z: Array, mask: Array, around: Array, x: Array) -> Array:
        return measurement.with_noise_at(around).whitened_innovation(z, x, mask)

    def cost(v: Array) -> Array:
        states = _trajectory(dynamics, problem.start(background, v), observations.steps, longest)
        misfits = jax.vmap(misfit)(values, observations.mask, values_around, states)
        return 0.5 * jnp.sum(v**2) + 0.5 * jnp.sum(misfits**2)

    shape = background.shape if problem.columns is None else problem.columns.shape[:1]
    v = jnp.zeros(shape, dtype)
    optimiser = optax.lbfgs(memory_size=problem.history)
    slope = optax.value_and_grad_from_state(cost)
    norm = optax.tree.norm

    def unsettled(carry: tuple) -> Array:
        _, _, gradient, count = carry
        return (count < problem.iterations) & (norm(gradient) > problem.tolerance.astype(dtype))

    def better(carry: tuple) -> tuple:
        v, state, _, count = carry
        value, gradient = slope(v, state=state)
        updates, state = optimiser.update(gradient, state, v, value=value, grad=gradient, value_fn=cost)
        return v + updates, state, optax.tree.get(state, "grad"), count + 1

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # Optax mixes both
        begin = (v, optimiser.init(v), jax.grad(cost)(v), jnp.zeros((), jnp.int32))
        v, _, gradient, count = jax.lax.while_loop(unsettled, better, begin)
    start = problem.start(background, v)
    return Variational(
        start,
        _trajectory(dynamics, start, observations.steps, longest),
        cost(v),
        0.5 * jnp.sum(v**2),
        norm(gradient),
        count,
    )
