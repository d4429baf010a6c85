"""Functions as parts of a pytree: arrays that a function has itself are leaves, all else of it is static.

A network held as static would be compared with the last one by its structure alone, and its weights be
constants of the compiled program: of derivative zero.
"""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

__all__ = ["Plain", "callable_name", "kept", "unwrapped"]


class Same:
    """A value that is equal to itself alone, for one that has no hash (a NumPy array, a list)."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Plain(eqx.Module):
    """A function without arrays of its own (a closure's belong to the program around), or another value."""

    value: Any = eqx.field(static=True)

    def __init__(self, value: Any):
        try:
            hash(value)
        except TypeError:
            value = Same(value)
        self.value = value


class Bound(eqx.Module):
    """A `functools.partial`, or a method, whose function and arguments are kept."""

    function: Any
    arguments: tuple[Any, ...]
    named: dict[str, Any]


class Holding(eqx.Module):
    """A function defined around values which JAX is tracing, or an object with such ones: what it holds."""

    function: Plain
    held: dict[str, Any]


class BoundFlax(eqx.Module):
    """A `flax.linen.Module` with its variables, which compares equal to one with others."""

    module: Plain
    variables: Any


def kept(function: Any) -> Any:
    """A function as a pytree, for a field of a module; `unwrapped` gives back what is called.

    A callable that is a pytree (eqx.Module, nnx.Module, jax.tree_util.Partial) stays as it is; of a
    functools.partial and a bound Flax module the JAX arrays are leaves. NumPy arrays given to a partial are
    not: they may be masks or indices. Of what a function closes over, or another object has, those arrays are
    that JAX is tracing.
    """
    if isinstance(function, functools.partial):
        arguments, named = tuple(map(kept, function.args)), {k: kept(v) for k, v in function.keywords.items()}
        return Bound(kept(function.func), arguments, named)
    linen = sys.modules.get("flax.linen")  # without it there is no such module
    if linen is not None and isinstance(function, linen.Module) and function.scope is not None:
        module, variables = function.unbind()
        return BoundFlax(Plain(module), variables)
    if isinstance(function, types.MethodType) and not isinstance(owner := kept(function.__self__), Plain):
        return Bound(Plain(function.__func__), (owner,), {})
    kinds = jax.Array if isinstance(function, np.ndarray) else jax.Array | np.ndarray
    if any(isinstance(leaf, kinds) for leaf in jax.tree.leaves(function)):
        return function
    if _holds_traced(function, ()):
        held = _held(function).items()
        return Holding(Plain(function), {k: kept(v) if _holds_traced(v, ()) else Plain(v) for k, v in held})
    return Plain(function)


def _held(function: Any) -> dict[str, Any]:
    """What a function closes over, or the attributes of another object; nothing of what is not yet there."""
    if not isinstance(function, types.FunctionType):
        of_its_own = callable(function) and not isinstance(function, type)
        return dict(getattr(function, "__dict__", {})) if of_its_own else {}
    try:
        return {str(i): cell.cell_contents for i, cell in enumerate(function.__closure__ or ())}
    except ValueError:
        return {}


def _holds_traced(value: Any, around: tuple[Any, ...]) -> bool:
    """Whether a tracer is inside: in a function, an object, a module or a container; not in containers of
    containers, which may be anything, and not in a function that closes over itself.
    """
    if isinstance(value, eqx.Module):
        return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value))
    if isinstance(value, list | tuple | dict):
        return any(isinstance(x, Tracer) for x in (value.values() if isinstance(value, dict) else value))
    held = _held(value)
    if not held or any(value is each for each in (*around, *held.values())):
        return isinstance(value, Tracer)
    return any(_holds_traced(each, (*around, value)) for each in held.values())


def unwrapped(function: Any) -> Any:
    """What a `kept` function was made of, with the arrays that it has now."""
    if isinstance(function, Plain):
        return function.value.value if isinstance(function.value, Same) else function.value
    if isinstance(function, Bound):
        arguments, named = map(unwrapped, function.arguments), function.named.items()
        return functools.partial(
            unwrapped(function.function), *arguments, **{k: unwrapped(v) for k, v in named}
        )
    if isinstance(function, Holding):
        plain = unwrapped(function.function)
        held = {name: unwrapped(each) for name, each in function.held.items()}
        if not isinstance(plain, types.FunctionType):
            anew = copy.copy(plain)
            vars(anew).update(held)
            return anew
        cells = tuple(types.CellType(held[str(i)]) for i in range(len(held)))  # JAX sorts keys as text
        code = plain.__code__, plain.__globals__, plain.__name__, plain.__defaults__, cells
        anew = types.FunctionType(*code)
        anew.__kwdefaults__ = plain.__kwdefaults__
        return anew
    if isinstance(function, BoundFlax):
        return unwrapped(function.module).bind(function.variables)
    return function


def callable_name(function: Callable[..., Any]) -> str:
    """What a function is called: its own name, that of the partial's function, or of the network's class."""
    while isinstance(function, functools.partial | jax.tree_util.Partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
