"""A network's architecture as plain data: what a checkpoint keeps of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .mlp import MLP
from .unet import UNet

__all__ = ["describe", "from_description", "parameter_count"]

_CLASSES = {"MLP": MLP, "UNet": UNet}
_TYPES = ("dtype", "param_dtype")


def describe(net: nn.Module) -> dict[str, Any]:
    """The class name and arguments of a network of this package, in types that JSON knows.

    Raises:
        TypeError: A network of another class.
    """
    name = type(net).__name__
    if _CLASSES.get(name) is not type(net):
        raise TypeError(f"can describe {', '.join(_CLASSES)} only, got a network of class {name}")
    out: dict[str, Any] = {"class": name}
    for field in dataclasses.fields(net):
        if field.name in ("parent", "name"):
            continue
        value = getattr(net, field.name)
        if field.name in _TYPES and value is not None:
            value = np.dtype(value).name
        out[field.name] = list(value) if isinstance(value, tuple) else value
    return out


def from_description(description: dict[str, Any]) -> nn.Module:
    """The network that `describe` wrote down.

    Raises:
        ValueError: A class that is not known.
    """
    arguments = dict(description)
    name = arguments.pop("class", None)
    if name not in _CLASSES:
        raise ValueError(f"unknown network class {name!r}; known: {', '.join(_CLASSES)}")
    for key, value in arguments.items():
        if key in _TYPES and value is not None:
            arguments[key] = jnp.dtype(value)
        elif isinstance(value, list):
            arguments[key] = tuple(value)
    return _CLASSES[name](**arguments)


def parameter_count(params: Any) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
