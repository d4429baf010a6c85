"""Strong-constraint 4D-Var: the initial state whose model trajectory fits all measurements."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..arrays import one_state
from ..derivatives import at_minimum, constant
from ..dynamics.base import Dynamics
from ..dynamics.function import as_dynamics
from ..ensemble.double import exactly_where, in_double, round_off
from ..filters.faults import ROUNDING_LIMIT
from ..loops import kept_seldom
from ..measurements.measurement import Measurement, Observations
from ..measurements.rows import ObservationsLike, as_observations
from ..numbers import number, whole
from ..results.given import Given
from .trajectories import Trajectory, given_of

__all__ = [
    "Found",
    "FourDVar",
    "Variational",
    "minimised",
    "norm",
    "round_off_of",
    "told",
    "trajectory",
    "whitened_misfits",
]


class Variational(eqx.Module, Trajectory):
    """What 4D-Var finds: a dataset, a file, a figure too (`to_xarray`, `to_netcdf`, `plot`).

    Attributes:
        start: x0, the state at step 0; trajectory: the states at the measurements' steps.
        cost: J there; background_cost: its first term.
        gradient_norm: |∇J| in the control v.
        iterations: L-BFGS steps taken.
        rounding: estimated round-off of x0 in posterior standard deviations (see `FourDVar`).
        steps: model step numbers of the trajectory's states; given: model, sensor and observations.
    """

    start: Float[Array, "*state"]
    trajectory: Float[Array, "K *state"]
    cost: Float[Array, ""]
    background_cost: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    iterations: Int[Array, ""]
    rounding: Float[Array, ""]
    steps: Int[Array, " K"]
    given: Given | None = None


class InexactWarning(RuntimeWarning):
    """What 4D-Var found may be off by a tenth of a posterior standard deviation or more."""


class ModelErrorWarning(UserWarning):
    """4D-Var with strong constraint was given a model with error."""


class FourDVar(eqx.Module):
    """Minimises J(x0) = ½|x0 - x_b|²_{B⁻¹} + ½ Σ_k |R^{-1/2}(z_k - H(M_k x0))|² over x0 = x_b + B^{1/2} v.

    J is a function of v, in which the first term is ½|v|²; its gradient is that of the JAX program (the exact
    adjoint). It keeps O(√K) states and what one cycle of model steps is made of, every step made three times
    (`loops.kept_seldom`); the trajectory that is found has K states (three times as many numbers in float32,
    where float64 may follow). Minimised by Optax's L-BFGS with a zoom line
    search. The model is taken as perfect: model error is left out (`Dynamics.mean_step`), and warned of. Any
    law of noise counts as a Gaussian of its covariance; one that depends on H(x) is fixed on the background's
    trajectory.

    In a linear-Gaussian problem x0 is the exact posterior mean. In a chaotic one J has more minima, the more
    the longer the window is against the time of error growth. With `stages` the window grows: each search
    takes some more of the cycles and begins where the last one ended (quasi-static 4D-Var).

    Where J is convex, x0 is at most |∇J| posterior deviations from the minimum (|A^{-1/2} ∇J|, as its Hessian
    A in v is I and more), which gives `tolerance` its meaning. A search in float32 that ends above it, or
    whose round-off matters, goes on in float64, with as many iterations again. Above .1, |∇J| and the
    round-off that is left warn.

    Derivatives of what is found are those of the minimum itself, by the implicit function theorem: right as
    far as it is one, so take a small `tolerance`.

    Source: Le Dimet & Talagrand (1986), Tellus A 38; control variable: Lorenc (2003); stages: Pires, Vautard
    & Talagrand (1996), Tellus A 48, 96-121.

    Args:
        std: background standard deviation, a scalar or of the state's shape: B = diag(std²).
        columns: instead of it, B = Σ_i c_i c_iᵀ with c = (C, *state): anomalies of an ensemble over √(N - 1),
            or the columns of a square root (`Lᵀ.reshape(n, *state)` of a Cholesky factor L).
        iterations: at most so many, in each precision.
        tolerance: ends when |∇J| is below this.
        history: pairs of steps and gradients that L-BFGS keeps.
        stages: searches of windows of K/stages, 2K/stages, …, K cycles.
    """

    std: Float[Array, "..."] | None
    columns: Float[Array, "C *state"] | None
    tolerance: Float[Array, ""]
    iterations: int = eqx.field(static=True)
    history: int = eqx.field(static=True)
    stages: int = eqx.field(static=True)

    def __init__(
        self,
        std: ArrayLike | float | None = None,
        columns: ArrayLike | None = None,
        iterations: int = 100,
        tolerance: float = 1e-3,
        history: int = 10,
        stages: int = 1,
    ):
        if (std is None) == (columns is None):
            raise ValueError("4D-Var needs the background's covariance once: give either std or columns.")
        counts = {"iterations": iterations, "history": history, "stages": stages}
        if min(whole(name, count) for name, count in counts.items()) < 1:
            raise ValueError(
                f"iterations, history and stages must be at least 1; got iterations={iterations}, "
                f"history={history}, stages={stages}."
            )
        name = "the background's std"
        self.std = None if std is None else number(name, std, "(0, inf]", everywhere=True)
        self.columns = None if columns is None else number("columns", columns, "(-inf, inf)")
        self.tolerance = number("tolerance", tolerance, "[0, inf]")
        self.iterations, self.history, self.stages = iterations, history, stages

    def __call__(
        self,
        background: ArrayLike,
        dynamics: Dynamics,
        measurement: Measurement,
        observations: ObservationsLike,
    ) -> Variational:
        """The minimum found from v = 0; compiled, and fit for `jax.vmap`.

        Args:
            background: x_b, at step 0.
            observations: see `assimilate`; a gap in the middle counts for nothing, steps may be irregular.

        Raises:
            ValueError: shapes that do not fit, or irregular steps that are traced.
        """
        observations = as_observations(observations)
        dynamics = as_dynamics(dynamics, np.shape(background))
        background, longest = self.checked(background, dynamics, measurement, observations)
        if dynamics.step_noise_variance is not None:
            warnings.warn(
                f"4D-Var takes the model as perfect: the error of {type(dynamics).__name__} is left out, and "
                "x0 is not the posterior mode of the model with it: smoothers.WeakFourDVar estimates it too.",
                ModelErrorWarning,
                stacklevel=2,
            )
        found, lost = minimised(self, background, dynamics, measurement, observations, longest)
        background_cost = 0.5 * jnp.sum(found.v**2)
        return told(
            Variational(
                found.start, found.trajectory, found.cost, background_cost, norm(found.gradient),
                found.iterations, found.stored + lost, observations.steps,
                given_of(dynamics, measurement, observations, found),
            )
        )  # fmt: skip

    def checked(
        self, background: ArrayLike, dynamics: Dynamics, measurement: Measurement, observations: Observations
    ) -> tuple[Array, int]:
        """The background as an array, and the most model steps between measurements."""
        shape = dynamics.state_shape
        background = one_state("background", background, shape)
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
        longest = observations.interval or int(np.diff(np.asarray(observations.steps), prepend=0).max())
        return background, longest

    def start(self, background: Float[Array, "*state"], v: Float[Array, "..."]) -> Float[Array, "*state"]:
        """x_b + B^{1/2} v."""
        if self.columns is not None:
            return background + jnp.tensordot(v, self.columns.astype(v.dtype), 1)
        assert self.std is not None
        return background + self.std.astype(v.dtype) * v

    def deviation(self) -> Float[Array, "..."]:
        """The background's standard deviations."""
        if self.columns is not None:
            return jnp.sqrt((self.columns**2).sum(0))
        assert self.std is not None
        return self.std

    def nothing(self, background: Array, n_cycles: int, longest: int) -> Any:
        """The control of the background itself."""
        shape = background.shape if self.columns is None else self.columns.shape[:1]
        return jnp.zeros(shape, background.dtype)

    def searched(
        self,
        v: Array,
        background: Array,
        dynamics: Dynamics,
        measurement: Measurement,
        values: Array,
        mask: Array,
        steps: Array,
        longest: int,
        coarse: float,
    ) -> Found:
        """The minimum found from v, in the precision of v. `coarse`: relative round-off of the result's."""
        dtype = v.dtype
        around = trajectory(dynamics, background, steps, longest, read=measurement.operator)
        cycles = ends_of(steps), (values, mask, around)

        def cycle(x: Array, each: tuple) -> tuple[Array, tuple[Array, Array]]:
            ends, (z, valid, near) = each
            x = one_cycle(dynamics, longest, x, ends)
            return x, (whitened_misfit(measurement, z, valid, near, x), x)

        def misfits(start: Array) -> tuple[Array, Array]:
            return jax.lax.scan(cycle, start, cycles)[1]

        def cost(v: Array) -> Array:
            def square(x: Array, each: tuple) -> tuple[Array, Array]:
                x, (misfit, _) = cycle(x, each)
                return x, jnp.sum(misfit**2)

            _, squares = kept_seldom(square, self.start(background, v), cycles, len(steps))
            return 0.5 * jnp.sum(v**2) + 0.5 * jnp.sum(squares)

        v = jax.lax.stop_gradient(v)
        fixed = constant(cost, v)
        optimiser = optax.lbfgs(memory_size=self.history)
        slope = optax.value_and_grad_from_state(fixed)

        def unsettled(carry: tuple) -> Array:
            _, _, gradient, count, moves = carry
            above = norm(gradient) > self.tolerance.astype(dtype)
            return moves & (count < self.iterations) & above

        def better(carry: tuple) -> tuple:
            v, state, _, count, _ = carry
            value, gradient = slope(v, state=state)
            updates, state = optimiser.update(gradient, state, v, value=value, grad=gradient, value_fn=fixed)
            new = v + updates
            return new, state, optax.tree.get(state, "grad"), count + 1, (new != v).any()

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # Optax mixes both
            begin = (v, optimiser.init(v), jax.grad(fixed)(v), jnp.zeros((), jnp.int32), jnp.ones((), bool))
            v, _, gradient, count, _ = jax.lax.while_loop(unsettled, better, begin)
        v = at_minimum(cost, v)
        start = self.start(background, v)
        states, size, searched = round_off_of(self, start, misfits, measurement, values, mask, around, steps)
        return Found(v, gradient, count, start, states, cost(v), coarse * size, round_off(dtype) * searched)


def told(found: Any) -> Any:
    """The result, and the warnings it deserves, told of the line that called 4D-Var."""
    if not isinstance(found.rounding, Tracer):
        _warn(found)
    return found


def _warn(found: Variational) -> None:
    rounding, slope = float(found.rounding), float(found.gradient_norm)
    if not rounding <= ROUNDING_LIMIT:
        warnings.warn(
            f"round-off of 4D-Var is {rounding:.2g} posterior standard deviations: use double precision, "
            "precision=float64 (in the library jax.config.update('jax_enable_x64', True) and a float64 "
            "background).",
            InexactWarning,
            stacklevel=4,
        )
    elif not slope <= ROUNDING_LIMIT:
        warnings.warn(
            f"4D-Var ended after {int(found.iterations)} iterations with a gradient of {slope:.2g}: x0 may "
            "be that many posterior standard deviations off. Take more iterations or a shorter window.",
            InexactWarning,
            stacklevel=4,
        )


def trajectory(
    dynamics: Dynamics,
    start: Array,
    steps: Array,
    longest: int,
    errors: Array | None = None,
    read: Callable[[Array], Array] = lambda x: x,
) -> Float[Array, "K ..."]:
    """`read` of the states at `steps`, at most `longest` apart; the adjoint recomputes a cycle's model steps.

    `errors` (K, longest, *state) are added after each step.
    """

    @jax.checkpoint
    def cycle(x: Array, each: tuple[tuple[Array, Array], Array | None]) -> Array:
        return one_cycle(dynamics, longest, x, *each)

    def body(x: Array, each: tuple[tuple[Array, Array], Array | None]) -> tuple[Array, Array]:
        x = cycle(x, each)
        return x, read(x)

    return jax.lax.scan(body, start, (ends_of(steps), errors))[1]


def ends_of(steps: Int[Array, " K"]) -> tuple[Int[Array, " K"], Int[Array, " K"]]:
    """Of each cycle the steps before and after it."""
    return jnp.concatenate([jnp.zeros((1,), steps.dtype), steps[:-1]]), steps


def one_cycle(
    dynamics: Dynamics, longest: int, x: Array, ends: tuple[Array, Array], errors: Array | None = None
) -> Array:
    """x after the model steps from the one end to the other."""
    first, last = ends

    def one(j: Array, x: Array) -> Array:
        moved = dynamics.mean_step(x, dynamics.time_of(first + j).astype(x.dtype))
        return jnp.where(first + j < last, moved if errors is None else moved + errors[j], x)

    return jax.lax.fori_loop(0, longest, one, x)


def whitened_misfit(measurement: Measurement, z: Array, mask: Array, around: Array, x: Array) -> Array:
    """R^{-1/2}(z - H(x)), R that of the measured values `around`."""
    return measurement.with_noise_at(around).whitened_innovation(z, x, mask)


def whitened_misfits(
    measurement: Measurement, values: Array, mask: Array, around: Array
) -> Callable[[Float[Array, "K *state"]], Float[Array, "K *z"]]:
    """R^{-1/2}(z_k - H(x_k)) of a trajectory, R that of the values `around`, (K, *z)."""
    misfit = jax.vmap(functools.partial(whitened_misfit, measurement))
    return lambda states: misfit(values, mask, around, states)


class Found(NamedTuple):
    """A control v with what belongs to it, and round-off in posterior standard deviations.

    With δ = u x0 (signs at random, u of the precision) and the tangent G of the whitened values,

    Attributes:
        stored: √(|B^{-1/2} δ|² + |G δ|²), of rounding x0 to the result's precision.
        searched: in the search's precision: of that at every model step, and of z and what is left of it.
    """

    v: Any
    gradient: Any
    iterations: Int[Array, ""]
    start: Float[Array, "*state"]
    trajectory: Float[Array, "K *state"]
    cost: Float[Array, ""]
    stored: Float[Array, ""]
    searched: Float[Array, ""]


@eqx.filter_jit
def minimised(
    problem: FourDVar,
    background: Array,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    longest: int,
) -> tuple[Found, Float[Array, ""]]:
    """What `problem.searched` finds, in float64 where the background's type does not do; round-off."""
    dtype = background.dtype
    values = observations.values.astype(dtype)
    arrays = problem, background, dynamics, measurement, values, observations.mask, observations.steps

    def search(v: Any, problem: FourDVar, *arrays: Any) -> Found:
        return problem.searched(v, *arrays, longest=longest, coarse=round_off(dtype))

    v = problem.nothing(background, len(values), longest)
    if problem.stages > 1:
        ends = len(values) * np.arange(1, problem.stages) // problem.stages
        seen = np.arange(len(values))[None] < ends[:, None]
        masks = observations.mask[None] & seen.reshape(*seen.shape, *(1,) * (values.ndim - 1))
        v = jax.lax.scan(lambda v, mask: (search(v, *arrays[:5], mask, arrays[6]).v, None), v, masks)[0]
    found = search(v, *arrays)
    lost = found.searched
    if dtype != jnp.float64:

        def double(_: Array) -> tuple[Found, Array]:
            again = in_double(search, found.v, *arrays, result=dtype)
            again = again._replace(iterations=found.iterations + again.iterations)
            return again, again.searched

        unsettled = norm(found.gradient) > problem.tolerance.astype(dtype)
        lost = jnp.where(unsettled, jnp.inf, found.searched)
        found, lost = exactly_where(lost, double, lambda _: (found, found.searched))
    return found, lost


def round_off_of(
    problem: FourDVar,
    start: Array,
    misfits: Callable[[Array], tuple[Array, Array]],
    measurement: Measurement,
    values: Array,
    mask: Array,
    around: Array,
    steps: Array,
) -> tuple[Array, Float[Array, ""], Float[Array, ""]]:
    """The trajectory from x0 by `misfits`, and `stored` and `searched` of `Found` in units of round-off."""
    dtype = start.dtype
    sign = jnp.where(jax.random.bernoulli(jax.random.key(0), shape=start.shape), 1.0, -1.0).astype(dtype)
    (whitened, states), (moved, _) = jax.jvp(misfits, (start,), (sign * start,))
    std = problem.deviation()
    relative = jnp.where(std > 0, start / std, 0.0)
    stored = jnp.sqrt(jnp.sum(relative**2) + jnp.sum(moved**2))
    noise = jax.vmap(lambda z, x: measurement.with_noise_at(x).noise.standard_deviation(z))
    seen = jnp.where(mask, values / noise(values, around), 0.0)
    searched = jnp.sqrt(1.0 + steps[-1].astype(dtype)) * stored + norm((whitened, seen))
    return states, stored, searched


def norm(tree: Any) -> Float[Array, ""]:
    """Of all arrays together."""
    first, *others = (jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))
    return jnp.sqrt(sum(others, start=first))
