"""A model that runs on the host: a program that JAX cannot trace."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, Scalar
from numpy.typing import ArrayLike

from ..callables import Plain, kept, unwrapped
from ..coordinates import Coordinates
from ..derivatives import without_derivative
from ..numbers import number, positive
from .base import Dynamics
from .function import Units, n_positional, names_of, units_of, with_parameters
from .host import Host

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
    the run (`BlackBoxError`). It has no derivative (NoDerivativeError).

    Members may differ in `parameters`, which an augmented state estimates (`masf_jax.estimation`): so each
    is an array with one entry a member along axis 0, in a plain run all the same.

    Args:
        function: the host function, batched over members.
        state_shape: shape of one member.
        dt: model time of one step.
        coordinates: needed for localisation only.
        variable_names: of the entries of the state's first axis, or one name of all components, for
            results and figures.
        variable_units, time_units, length_units: as of `Function`.
        climatology: a JAX function of a random key, which draws a state to start from.
        parameters: numbers that the function takes by name, `f(states, time, *, drag)`, each as a NumPy array
            (members, *shape of the number).

    Raises:
        ValueError: arguments of another number, or a function that holds a number which JAX is tracing.
    """

    _function: Plain
    dt: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True)
    _coordinates: Coordinates | None = eqx.field(static=True)
    _variable_names: tuple[str, ...] | None = eqx.field(static=True)
    _units: Units = eqx.field(static=True)
    _climatology: Any
    n_arguments: int = eqx.field(static=True)
    parameters: dict[str, Float[Array, "..."]]

    def __init__(
        self,
        function: Callable[..., np.ndarray],
        state_shape: tuple[int, ...],
        dt: float = 1.0,
        coordinates: Coordinates | None = None,
        variable_names: str | Sequence[str] | None = None,
        climatology: Callable[[PRNGKeyArray], Array] | None = None,
        variable_units: str | Sequence[str] | None = None,
        time_units: str | None = None,
        length_units: str | None = None,
        parameters: Mapping[str, ArrayLike] | None = None,
    ):
        self._function, self.state_shape, self.dt = Plain(function), tuple(state_shape), positive("dt", dt)
        self._coordinates, self._climatology = coordinates, kept(climatology)
        self._variable_names = names_of(variable_names, self.state_shape)
        self._units = units_of(
            variable_units, time_units, length_units, self.state_shape, self._variable_names
        )
        given = {} if parameters is None else parameters
        self.parameters = {name: number(name, value) for name, value in given.items()}
        self.n_arguments = n_positional(function, 2, "f(states) or f(states, time)", given)
        _refuse_traced(function)

    def __call__(
        self, x: Float[Array, "*state"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, "*state"]:
        result = jax.ShapeDtypeStruct(x.shape, x.dtype)
        numbers = {name: value.astype(x.dtype) for name, value in self.parameters.items()}
        x, numbers = without_derivative(_NO_DERIVATIVE, (x, numbers))
        shapes = {name: value.shape for name, value in numbers.items()}
        host = Host(self._function, self.state_shape, self.n_arguments, tuple(shapes.items()))
        return jax.pure_callback(host, result, x, jnp.asarray(time), numbers, vmap_method="expand_dims")

    @property
    def function(self) -> Callable[..., np.ndarray]:
        return unwrapped(self._function)

    @property
    def climatology(self) -> Callable[[PRNGKeyArray], Array] | None:
        return unwrapped(self._climatology)

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

    def with_numbers(self, **numbers: ArrayLike) -> Self:
        """The model with other `parameters` (or another dt), which may be traced."""
        self, rest = with_parameters(self, numbers)
        return super().with_numbers(**rest)

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, "*state"]:
        return super().initial_state(key) if self.climatology is None else self.climatology(key)


def _refuse_traced(function: Callable[..., np.ndarray]) -> None:
    """Raises ValueError where a host function has closed over a number that JAX is tracing."""
    held: dict[str, object] = {}
    if inspect.isfunction(function):
        held = dict(inspect.getclosurevars(function).nonlocals)
    elif isinstance(function, functools.partial):
        held = {str(i): value for i, value in enumerate(function.args)} | function.keywords
    traced = [name for name, value in held.items() if isinstance(value, Tracer)]
    if traced:
        raise ValueError(
            f"the black-box function holds {', '.join(traced)}, a number that JAX is tracing and NumPy "
            "cannot use. Numbers that change (unknown=…, vmap) are BlackBox(f, …, parameters={"
            f'"{traced[0]}": value}}), which f takes by name: f(states, time, *, {traced[0]}), one entry a '
            "member."
        )
