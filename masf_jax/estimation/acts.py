"""Whether a number acts on what an ensemble forecasts: read from the traced program, not from values."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Var
from jaxtyping import Array

from ..dynamics.base import Dynamics
from ..dynamics.model_error import ModelError
from .unknown import Prior, Problem

__all__ = ["acts_on_mean"]

_CALLS = ("jit", "pjit", "closed_call")


def acts_on_mean(
    put: Callable[[Problem, Array], Problem], prior: Prior, shape: tuple[int, ...], problem: Problem
) -> bool:
    """Whether the mean step or the measured value of a state is computed from an unknown.

    False of a number that only scales random noise. True where it cannot be said: of a model that draws its
    noise itself (a random `Function`), or hands all of its numbers to a loop or a host function.
    """
    number = jnp.result_type(float)

    def outcome(u: Array, x: Array, time: Array) -> tuple[Array, Array]:
        now = put(problem, prior.value(u))
        return _mean_step(now.dynamics, x, time), now.measurement.operator(x)

    x = jax.ShapeDtypeStruct(problem.dynamics.state_shape, number)
    program = jax.make_jaxpr(outcome)(
        jax.ShapeDtypeStruct(shape, number), x, jax.ShapeDtypeStruct((), number)
    )
    used = _used(program.jaxpr, [True] * len(program.jaxpr.outvars))
    return used[0]


def _mean_step(model: Dynamics, x: Array, time: Array) -> Array:
    """Without the noise that the model says it adds; a draw of one that says none."""
    if isinstance(model, ModelError):
        return _mean_step(model.dynamics, x, time)
    if model.step_noise_variance is not None:
        return model.mean_step(x, time)
    return model(x, time, jax.random.key(0))


def _used(program: Jaxpr, wanted: list[bool]) -> list[bool]:
    """Which arguments of a program the wanted ones of its results are computed from."""
    needed = {v for v, want in zip(program.outvars, wanted, strict=True) if want and isinstance(v, Var)}
    for step in reversed(program.eqns):
        made = [v in needed for v in step.outvars]
        if not any(made):
            continue
        inner = step.params.get("jaxpr")
        if step.primitive.name in _CALLS and isinstance(inner, ClosedJaxpr):
            used = _used(inner.jaxpr, made)
        else:
            used = [True] * len(step.invars)
        needed |= {v for v, use in zip(step.invars, used, strict=True) if use and isinstance(v, Var)}
    return [v in needed for v in program.invars]
