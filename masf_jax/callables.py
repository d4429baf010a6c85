"""Functions as parts of a pytree: arrays that a function has itself are leaves, all else of it is static.

A network held as static would be compared with the last one by its structure alone, and its weights be
constants of the compiled program: of derivative zero.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

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


class BoundFlax(eqx.Module):
    """A `flax.linen.Module` with its variables, which compares equal to one with others."""

    module: Plain
    variables: Any


def kept(function: Any) -> Any:
    """A function as a pytree, for a field of a module; `unwrapped` gives back what is called.

    A callable that is a pytree (eqx.Module, nnx.Module, jax.tree_util.Partial) stays as it is; of a
    functools.partial and a bound Flax module the JAX arrays are leaves. NumPy arrays given to a partial are
    not: they may be masks or indices.
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
    return function if any(isinstance(leaf, kinds) for leaf in jax.tree.leaves(function)) else Plain(function)


def unwrapped(function: Any) -> Any:
    """What a `kept` function was made of, with the arrays that it has now."""
    if isinstance(function, Plain):
        return function.value.value if isinstance(function.value, Same) else function.value
    if isinstance(function, Bound):
        arguments, named = map(unwrapped, function.arguments), function.named.items()
        return functools.partial(
            unwrapped(function.function), *arguments, **{k: unwrapped(v) for k, v in named}
        )
    if isinstance(function, BoundFlax):
        return unwrapped(function.module).bind(function.variables)
    return function


def callable_name(function: Callable[..., Any]) -> str:
    """What a function is called: its own name, that of the partial's function, or of the network's class."""
    while isinstance(function, functools.partial | jax.tree_util.Partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
