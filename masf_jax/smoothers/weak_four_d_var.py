"""Weak-constraint 4D-Var: the initial state and the model's errors that fit all measurements."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..derivatives import at_minimum, constant
from ..dynamics.base import Dynamics
from ..dynamics.function import as_dynamics
from ..ensemble.double import round_off
from ..filters.kalman.exact import square_root
from ..measurements.measurement import Measurement
from ..measurements.rows import ObservationsLike, as_observations
from ..numbers import check_covariance, whole
from ..results.given import Given
from .four_d_var import Found, FourDVar, minimised, norm, round_off_of, told, trajectory, whitened_misfits
from .trajectories import Trajectory, given_of

__all__ = ["WeakFourDVar", "WeakVariational"]

Control: TypeAlias = tuple[Array, Array]
_DECREASE, _HALVINGS = 1e-4, 20
"""Of a Gauss-Newton step: the share of the promised decrease that it must reach; most halvings."""
_ROUND_OFF, _FLATTER = 1e-6, 0.1
"""A rise of J by this share may be round-off: then the slope must fall by this share of what it should."""


class WeakVariational(eqx.Module, Trajectory):
    """What weak-constraint 4D-Var finds.

    Attributes:
        start, trajectory, cost, background_cost, gradient_norm, iterations, rounding, steps, given: see
            `Variational`; iterations are Gauss-Newton steps, and the gradient is that in (v, η).
        error_cost: the second term of J.
        errors: q of each model step, by cycles: (K, most steps of a cycle, *state), zero past a cycle's end.
    """

    start: Float[Array, "*state"]
    trajectory: Float[Array, "K *state"]
    errors: Float[Array, "K steps *state"]
    cost: Float[Array, ""]
    background_cost: Float[Array, ""]
    error_cost: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    iterations: Int[Array, ""]
    rounding: Float[Array, ""]
    steps: Int[Array, " K"]
    given: Given | None = None


class WeakFourDVar(FourDVar):
    """4D-Var of a model with error: x_{j+1} = M(x_j) + q_j, q_j ~ N(0, Q) at each model step.

        J = ½|x0 - x_b|²_{B⁻¹} + ½ Σ_j |q_j|²_{Q⁻¹} + ½ Σ_k |R^{-1/2}(z_k - H(x_k))|²

    over x0 = x_b + B^{1/2} v and q_j = Q^{1/2} η_j: the forcing formulation. In (v, η) the first terms are
    ½|v|² + ½|η|², and the Hessian is I and more. Minimised by Gauss-Newton: steps solve (I + GᵀG) δ = -∇J by
    conjugate gradients, G the tangent of the misfits, applied by the JAX program's own tangent and adjoint,
    and are halved until J falls as far as it should. Near the minimum, where what J should fall by is lost in
    its round-off (|∇J| of about √(ε J)), |∇J| is what must fall.

    Of a linear-Gaussian problem the trajectory is the mean of the exact smoother (`rts`); as Q → 0 it is that
    of `FourDVar`. Precision, warnings and the law of the noise are those of `FourDVar`.

    Memory: the errors of all steps, (steps of the window) n numbers, nine times in float64, 22 times in
    float32, which may search in float64 too.

    Source: Sasaki (1970); Zupanski (1997), doi 10.1175/1520-0493(1997)125; formulations: Trémolet (2006), doi
    10.1256/qj.05.224. Gauss-Newton as incremental 4D-Var: Lawless, Gratton & Nichols (2005). Steps in J's
    round-off: Hager & Zhang (2005), doi 10.1137/030601880.

    Args:
        q: Q of one model step: a variance (scalar, or of the state's shape) or a covariance (n, n) of the
            raveled state, positive semi-definite. None: that of the model (`Dynamics.step_noise_variance`).
            Components without variance have no error.
        iterations: Gauss-Newton steps, at most so many, in each precision.
        inner: conjugate gradient steps, at most so many in each of them.
        Others: see `FourDVar`.
    """

    q: Float[Array, "..."] | None
    inner: int = eqx.field(static=True)

    def __init__(
        self,
        std: ArrayLike | float | None = None,
        columns: ArrayLike | None = None,
        q: ArrayLike | float | None = None,
        iterations: int = 30,
        tolerance: float = 1e-3,
        inner: int = 200,
        stages: int = 1,
    ):
        super().__init__(std, columns, iterations, tolerance, stages=stages)
        whole("inner", inner, 1)
        self.q = None if q is None else jnp.asarray(q, dtype=float)
        self.inner = inner

    def __call__(
        self,
        background: ArrayLike,
        dynamics: Dynamics,
        measurement: Measurement,
        observations: ObservationsLike,
    ) -> WeakVariational:
        """The minimum found from v = 0, η = 0; compiled, and fit for `jax.vmap`.

        Raises:
            ValueError: a model without error and no q, a q of another shape or not positive semi-definite,
                or what `FourDVar` refuses.
        """
        observations = as_observations(observations)
        dynamics = as_dynamics(dynamics, np.shape(background))
        background, longest = self.checked(background, dynamics, measurement, observations)
        _check(self.q, dynamics)
        found, lost = minimised(self, background, dynamics, measurement, observations, longest)
        v, eta = found.v
        return told(
            WeakVariational(
                found.start,
                found.trajectory,
                self.errors(eta, self.root(dynamics, eta.dtype)),
                found.cost,
                0.5 * jnp.sum(v**2),
                0.5 * jnp.sum(eta**2),
                norm(found.gradient),
                found.iterations,
                found.stored + lost,
                observations.steps,
                given_of(dynamics, measurement, observations, found),
            )
        )

    def root(self, dynamics: Dynamics, dtype: Any) -> Float[Array, "..."]:
        """Q^{1/2}: standard deviations, or a matrix."""
        q = dynamics.step_noise_variance if self.q is None else self.q
        assert q is not None
        return (jnp.sqrt(q) if q.shape in ((), dynamics.state_shape) else square_root(q)).astype(dtype)

    def errors(self, eta: Float[Array, "K steps *state"], root: Array) -> Float[Array, "K steps *state"]:
        """Q^{1/2} η."""
        if root.ndim < 2 or root.shape == eta.shape[2:]:
            return jnp.broadcast_to(root, eta.shape) * eta
        return (eta.reshape(*eta.shape[:2], -1) @ root.T).reshape(eta.shape)

    def nothing(self, background: Array, n_cycles: int, longest: int) -> Control:
        v = super().nothing(background, n_cycles, longest)
        return v, jnp.zeros((n_cycles, longest, *background.shape), background.dtype)

    def searched(
        self,
        v: Control,
        background: Array,
        dynamics: Dynamics,
        measurement: Measurement,
        values: Array,
        mask: Array,
        steps: Array,
        longest: int,
        coarse: float,
    ) -> Found:
        dtype = background.dtype
        around = trajectory(dynamics, background, steps, longest, read=measurement.operator)
        misfit = whitened_misfits(measurement, values, mask, around)
        root = self.root(dynamics, dtype)

        def states(start: Array, eta: Array) -> Array:
            return trajectory(dynamics, start, steps, longest, self.errors(eta, root))

        def misfits(control: Control) -> Array:
            v, eta = control
            return misfit(states(self.start(background, v), eta))

        def cost(control: Control, d: Array) -> Array:
            return 0.5 * (norm(control) ** 2 + jnp.sum(d**2))

        def gradient(control: Control, d: Array, pull: Any) -> Control:
            return _along(control, 1.0, pull(d)[0])

        v = jax.lax.stop_gradient(v)
        fixed = constant(misfits, v)

        def unsettled(carry: tuple) -> Array:
            _, slope, count, moves = carry
            return moves & (count < self.iterations) & (norm(slope) > self.tolerance.astype(dtype))

        def better(carry: tuple) -> tuple:
            control, slope, count, _ = carry
            d, pull = jax.vjp(fixed, control)

            def hessian(u: Control) -> Control:
                return _along(u, 1.0, pull(jax.jvp(fixed, (control,), (u,))[1])[0])

            downhill = jax.tree.map(jnp.negative, slope)
            step, _ = cg(hessian, downhill, tol=0.01, maxiter=self.inner)
            promised = -sum(jnp.sum(a * b) for a, b in zip(step, slope, strict=True))
            before, steep = cost(control, d), norm(slope)

            def halved(tried: tuple[Array, Array, Control, Array]) -> tuple[Array, Array, Control, Array]:
                share = tried[0] / 2
                new = _along(control, share, step)
                d, pull = jax.vjp(fixed, new)
                after, there = cost(new, d), gradient(new, d, pull)
                lower = after <= before - _DECREASE * share * promised
                same = after <= before + _ROUND_OFF * before
                flatter = norm(there) <= (1 - _FLATTER * share) * steep
                return share, lower | (same & flatter), there, tried[3] + 1

            begin = jnp.full((), 2, dtype), jnp.zeros((), bool), slope, jnp.asarray(0)
            share, fell, there, _ = jax.lax.while_loop(
                lambda tried: ~tried[1] & (tried[3] <= _HALVINGS), halved, begin
            )
            new = _along(control, share, step), there
            control, slope = jax.tree.map(lambda a, b: jnp.where(fell, a, b), new, (control, slope))
            return control, slope, count + 1, fell

        d, pull = jax.vjp(fixed, v)
        begin = v, gradient(v, d, pull), jnp.zeros((), jnp.int32), jnp.ones((), bool)
        with jax.numpy_dtype_promotion("standard"):
            v, slope, count, _ = jax.lax.while_loop(unsettled, better, begin)
        v = at_minimum(lambda v: cost(v, misfits(v)), v)
        start = self.start(background, v[0])

        def from_start(start: Array) -> tuple[Array, Array]:
            found = states(start, v[1])
            return misfit(found), found

        found, size, searched = round_off_of(
            self, start, from_start, measurement, values, mask, around, steps
        )
        total = cost(v, misfit(found))
        return Found(v, slope, count, start, found, total, coarse * size, round_off(dtype) * searched)


def _along(control: Control, share: Any, step: Control) -> Control:
    """control + share · step."""
    v, eta = (a + share * b for a, b in zip(control, step, strict=True))
    return v, eta


def _check(q: Array | None, dynamics: Dynamics) -> None:
    """Refuses a Q that is not one of this model's states."""
    shape, n, name = dynamics.state_shape, math.prod(dynamics.state_shape), type(dynamics).__name__
    if q is None:
        if dynamics.step_noise_variance is None:
            raise ValueError(
                f"weak-constraint 4D-Var needs the covariance of the model's error, and {name} says none: "
                "give q, or a model with error (dynamics.ModelError). For a perfect model see FourDVar."
            )
        return
    if q.shape not in ((), shape, (n, n)):
        raise ValueError(
            f"q must be a variance, variances of the state's shape {shape}, or a covariance ({n}, {n}); got "
            f"shape {q.shape}."
        )
    if isinstance(q, Tracer):
        return
    if q.shape == (n, n):
        check_covariance("q", q)
        return
    values = np.asarray(q, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("q must be finite.")
    if values.min() < 0:
        raise ValueError(f"q must be variances, 0 or more; got {values.min():g}.")
