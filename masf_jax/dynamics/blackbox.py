"""A model that runs on the host: a program that JAX cannot trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..coordinates import Coordinates
from ..derivatives import without_derivative
from ..numbers import positive
from .base import Dynamics
from .function import Units, n_positional, names_of, units_of

__all__ = ["BlackBox"]


_NO_DERIVATIVE = (
    "a BlackBox runs outside JAX and has no derivative, which 4D-Var, the extended Kalman filter and "
    "gradients need: write the model in jax.numpy (dynamics.Function), or take an ensemble filter."
)


class BlackBox(Dynamics):
    """A model that runs on the host: NumPy, a subprocess, PyTorch, a compiled solver.

    `function(states)` or `function(states, time)` receives ALL members at once, a NumPy array (members,
    *state_shape), and the model time as a float; it returns an array of the same shape. Called through
    `jax.pure_callback`, so it must be deterministic in its arguments; an exception it raises stops
    the run with its own message. It has no derivative (NoDerivativeError).

    Args:
        function: the host function, batched over members.
        state_shape: shape of one member.
        dt: model time of one step.
        coordinates: needed for localisation only.
        variable_names: along the state's first axis, for results and figures.
        variable_units, time_units, length_units: as of `Function`.
        climatology: a JAX function of a random key, which draws a state to start from.
    """

    function: Callable[..., np.ndarray] = eqx.field(static=True)
    dt: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True)
    _coordinates: Coordinates | None = eqx.field(static=True)
    _variable_names: tuple[str, ...] | None = eqx.field(static=True)
    _units: Units = eqx.field(static=True)
    climatology: Callable[[PRNGKeyArray], Array] | None = eqx.field(static=True)
    n_arguments: int = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[..., np.ndarray],
        state_shape: tuple[int, ...],
        dt: float = 1.0,
        coordinates: Coordinates | None = None,
        variable_names: Sequence[str] | None = None,
        climatology: Callable[[PRNGKeyArray], Array] | None = None,
        variable_units: str | Sequence[str] | None = None,
        time_units: str | None = None,
        length_units: str | None = None,
    ):
        self.function, self.state_shape, self.dt = function, tuple(state_shape), positive("dt", dt)
        self._coordinates, self.climatology = coordinates, climatology
        self._variable_names = names_of(variable_names, self.state_shape)
        self._units = units_of(variable_units, time_units, length_units, self.state_shape)
        self.n_arguments = n_positional(function, 2, "f(states) or f(states, time)")

    def __call__(
        self, x: Float[Array, "*state"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, "*state"]:
        host = _Host(self.function, self.state_shape, self.n_arguments)
        result = jax.ShapeDtypeStruct(x.shape, x.dtype)
        x = without_derivative(_NO_DERIVATIVE, x)
        return jax.pure_callback(host, result, x, jnp.asarray(time), vmap_method="expand_dims")

    @property
    def coordinates(self) -> Coordinates | None:
        return self._coordinates

    @property
    def variable_names(self) -> tuple[str, ...] | None:
        return self._variable_names

    @property
    def variable_units(self) -> tuple[str, ...] | None:
        return self._units.variables

    @property
    def time_units(self) -> str | None:
        return self._units.time

    @property
    def length_units(self) -> str | None:
        return self._units.length

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, "*state"]:
        return super().initial_state(key) if self.climatology is None else self.climatology(key)


@dataclasses.dataclass(frozen=True)
class _Host:
    """The function as JAX calls it; hashable, as the parameters of a traced program must be."""

    function: Callable[..., np.ndarray]
    state_shape: tuple[int, ...]
    n_arguments: int

    def __call__(self, x: Array, time: Array) -> np.ndarray:
        states, times = np.asarray(x), np.unique(np.asarray(time))
        if times.size != 1:
            raise ValueError(f"BlackBox advances all members from one model time; got {times}.")
        members = states.reshape(-1, *self.state_shape).copy()  # may be changed in place
        out = np.asarray(self.function(*(members, float(times[0]))[: self.n_arguments]))
        if out.shape != members.shape:
            raise ValueError(
                f"the black-box function must return shape {members.shape} (members, *state_shape), "
                f"the shape it was given; got {out.shape}."
            )
        return out.astype(states.dtype).reshape(states.shape)
