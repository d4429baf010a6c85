"""Which component of a state each value of a function depends on, read from its program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

__all__ = ["NONE", "SEVERAL", "UNKNOWN", "read_sources"]

NONE, SEVERAL, UNKNOWN = -1, -2, -3
"""In place of a component's number: on none, on several, or by an operation that is not looked into."""

_MOVING = {
    "broadcast_in_dim", "concatenate", "copy", "copy_p", "dynamic_slice", "dynamic_update_slice",
    "expand_dims", "gather", "pad", "reshape", "rev", "slice", "split", "squeeze", "stack", "tile",
    "transpose",
}  # fmt: skip
"""Operations that place values and compute nothing: numbers of components go the same way."""
_INDICES = {"dynamic_slice": 1, "dynamic_update_slice": 2, "gather": 1}
"""Of which operand on they are told places."""
_TAKING_TURNS = {
    "argmax", "argmin", "conv_general_dilated", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum",
    "fft", "reduce_window", "scan", "scatter", "scatter-add", "scatter_add", "sort", "top_k", "while",
}  # fmt: skip
"""Operations whose values need not depend on all that goes in, and which are not looked into."""


class _Traced(NamedTuple):
    """Of an array: the component that each of its values depends on, and itself where that is none."""

    sources: np.ndarray
    value: Any


def read_sources(function: Callable[..., Any], state_shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The raveled component that each raveled value depends on, or NONE, SEVERAL or UNKNOWN.

    Derivatives at some states cannot tell: a threshold may hide one, or units make it look small. Here each
    operation says what goes into each of its values, whatever the state is. What is multiplied by 0 does not.
    """
    with jax.ensure_compile_time_eval():
        program = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(state_shape, dtype))
        state = _Traced(np.arange(np.prod(state_shape, dtype=int)).reshape(state_shape), None)
        (out, *_) = _through(program.jaxpr, program.consts, [state])
    return out.sources.reshape(-1)


def _through(program: Jaxpr, constants: Sequence[Any], given: Sequence[_Traced]) -> list[_Traced]:
    known: dict[Any, _Traced] = dict(zip(program.invars, given, strict=True))
    known |= {name: _constant(value) for name, value in zip(program.constvars, constants, strict=True)}

    def read(name: Any) -> _Traced:
        return _constant(name.val) if isinstance(name, Literal) else known[name]

    for step in program.eqns:
        made = _one(step, [read(name) for name in step.invars])
        known |= dict(zip(step.outvars, made, strict=True))
    return [read(name) for name in program.outvars]


def _constant(value: Any) -> _Traced:
    return _Traced(np.full(np.shape(value), NONE), value)


def _one(step: Any, given: list[_Traced]) -> list[_Traced]:
    name, shapes = step.primitive.name, [each.aval.shape for each in step.outvars]
    inner = step.params.get("jaxpr", step.params.get("call_jaxpr"))
    if inner is not None and name not in _TAKING_TURNS:
        program, constants = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
        return _through(program, constants, given)
    if all(each.value is not None for each in given):
        made = step.primitive.bind(*(each.value for each in given), **step.params)
        return [_constant(value) for value in (made if step.primitive.multiple_results else [made])]
    sources = [each.sources for each in given]
    if name == "cond":
        ways = [_through(each.jaxpr, each.consts, given[1:]) for each in step.params["branches"]]
        if given[0].value is not None:
            return ways[int(given[0].value)]
        made = [[each.sources for each in results] for results in zip(*ways, strict=True)]
        return [_Traced(_together([sources[0], *each], each[0].shape), None) for each in made]
    if name in _MOVING:
        places = given[_INDICES.get(name, len(given)) :]
        if all(each.value is not None for each in places):
            moved = [jnp.asarray(each, jnp.int32) for each in sources[: len(given) - len(places)]]
            made = step.primitive.bind(*moved, *(each.value for each in places), **step.params)
            made = [np.asarray(each, int) for each in (made if step.primitive.multiple_results else [made])]
            return [_Traced(np.where(each < UNKNOWN, NONE, each), None) for each in made]  # filled in
        return [_Traced(np.full(shape, UNKNOWN), None) for shape in shapes]
    if name == "dot_general" and (found := _products(step, given)) is not None:
        return [_Traced(found, None)]
    if name in _TAKING_TURNS or name == "dot_general":
        return [_Traced(np.full(shape, UNKNOWN), None) for shape in shapes]
    if name.startswith("reduce_") and "axes" in step.params:
        return [_Traced(_of_axes(sources[0], tuple(step.params["axes"])), None)]
    if name == "select_n" and given[0].value is not None:
        which = np.broadcast_to(np.asarray(given[0].value, int), shapes[0])
        return [_Traced(np.choose(which, sources[1:]), None)]
    if name == "mul":
        sources = [
            np.where(np.asarray(other.value) == 0, NONE, own.sources)
            if other.value is not None
            else own.sources
            for own, other in zip(given, reversed(given), strict=True)
        ]
    if all(each.shape in ((), shape) for each in sources for shape in shapes):  # value by value
        return [_Traced(_together(sources, shape), None) for shape in shapes]
    return [_Traced(np.full(shape, UNKNOWN), None) for shape in shapes]


def _together(sources: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Of values made of one value of each array."""
    return _of_axes(np.stack([np.broadcast_to(each, shape) for each in sources]), (0,))


def _of_axes(sources: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Of values made of all values along the axes."""
    one = sources >= 0
    least = np.min(sources, axes, initial=np.iinfo(int).max, where=one)
    most = np.max(sources, axes, initial=NONE, where=one)
    found = np.where(most == NONE, NONE, np.where(least == most, most, SEVERAL))
    found = np.where((sources == UNKNOWN).any(axes) & (found != SEVERAL), UNKNOWN, found)
    return np.where((sources == SEVERAL).any(axes), SEVERAL, found)


def _products(step: Any, given: list[_Traced]) -> np.ndarray | None:
    """Of sums of products with constants, those of 0 left out; None where there are none."""
    if all(each.value is None for each in given):
        return None
    sources = next(each.sources for each in given if each.value is None)

    def total(values: np.ndarray) -> np.ndarray:
        """Of the values that meet a constant other than 0; exact up to 2²⁴."""
        parts = [values if each.value is None else np.asarray(each.value) != 0 for each in given]
        params = {**step.params, "preferred_element_type": np.dtype("float32")}
        return np.asarray(step.primitive.bind(*(jnp.asarray(part, jnp.float32) for part in parts), **params))

    count, numbers = total(sources != NONE), np.maximum(sources, 0)
    only = 1024 * total(numbers // 1024).astype(int) + total(numbers % 1024).astype(int)  # where count is 1
    found = np.where(count == 0, NONE, np.where(count == 1, only, SEVERAL))
    found = np.where((total(sources == UNKNOWN) > 0) & (found != SEVERAL), UNKNOWN, found)
    return np.where(total(sources == SEVERAL) > 0, SEVERAL, found)
