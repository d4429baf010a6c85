"""Numbers of models and filters as leaves: floating-point arrays, checked where their values are known."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

__all__ = ["as_float", "check_covariance", "number", "positive", "shown", "whole", "within"]


def number(
    name: str,
    value: ArrayLike | Array,
    interval: str = "[-inf, inf]",
    *,
    must: str | None = None,
    everywhere: bool = False,
) -> Float[Array, "..."]:
    """`value` as a floating-point array, which a compiled program takes as an argument.

    Never weakly typed, so that another value compiles nothing new; concrete also inside `jit` where `value`
    is. A traced value is not checked.

    Args:
        interval: what the values must lie in, such as "(0, 1]"; infinity belongs to it by a bracket.
        must: what to say instead of what follows from the interval: "{name} must {must}; got …".
        everywhere: of an array: the message tells the smallest value.

    Raises:
        ValueError: a value outside, or NaN.
    """
    if isinstance(value, Tracer):
        return jnp.asarray(value, dtype=float)
    values = np.asarray(value, dtype=np.float64)
    low, high = _ends(interval)
    above = values >= low if interval[0] == "[" else values > low
    below = values <= high if interval[-1] == "]" else values < high
    if not np.all(above & below):
        first = value if values.ndim == 0 else values[~(above & below)][0]
        got = f"everywhere; got a smallest value of {values.min()}" if everywhere else f"got {first}"
        join = " " if everywhere else "; "
        raise ValueError(f"{name} must {must or _sentence(interval)}{join}{got}.")
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value, dtype=float)


def positive(name: str, value: ArrayLike | Array) -> Float[Array, "..."]:
    """`value` as a floating-point array, refused unless it is a positive number."""
    return number(name, value, "(0, inf]", must="be a positive number")


def whole(name: str, value: Any, least: int = 0) -> Any:
    """`value` as an int; a traced or JAX integer as it is, the first unchecked.

    Raises:
        ValueError: no whole number, or one below `least`.
    """
    if isinstance(value, Tracer) and np.issubdtype(value.dtype, np.integer) and value.shape == ():
        return value
    try:
        found = operator.index(value)
    except TypeError:
        found = None
    if found is None or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    if found < least:
        raise ValueError(f"{name} must be at least {least}; got {value}.")
    return value if isinstance(value, jax.Array) else found


def within(name: str, interval: str, must: str | None = None) -> Callable[[Any], Any]:
    """`number` as the converter of a field; None stays None."""
    return lambda value: None if value is None else number(name, value, interval, must=must)


def check_covariance(name: str, covariance: ArrayLike | Array) -> None:
    """Raises ValueError for what is no covariance, in whatever units of its components.

    Traced ones are not looked at.
    """
    if isinstance(covariance, Tracer):
        return
    values = np.asarray(covariance, np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(f"{name} must be a square matrix; got shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite.")
    variances = np.diagonal(values)
    if (variances < 0).any():
        raise ValueError(f"{name} has a negative variance, {variances.min():g}.")
    std = np.where(variances > 0, np.sqrt(variances), 1.0)
    correlation = values / std[:, None] / std[None, :]
    asymmetry = np.abs(correlation - correlation.T).max(initial=0.0)
    if asymmetry > 1e-4:
        raise ValueError(f"{name} must be symmetric; its correlations differ by up to {asymmetry:.2g}.")
    least = np.linalg.eigvalsh((correlation + correlation.T) / 2).min(initial=0.0)
    if least < -1e-5 * len(values):
        raise ValueError(
            f"{name} must be positive semi-definite; the least eigenvalue of its correlations is {least:.2g}."
        )


def as_float(value: ArrayLike | Array) -> float:
    """The Python float that a concrete number was made from: of a float32 its shortest decimal, 7.28."""
    return float(str(np.asarray(value)[()]))


def shown(value: ArrayLike | Array) -> str:
    """A number as a message tells it: 7.28 of a float32, not 7.28000020980835."""
    return str(value) if isinstance(value, Tracer) else str(as_float(value))


@functools.cache
def _ends(interval: str) -> tuple[float, float]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high)


def _sentence(interval: str) -> str:
    low, high = _ends(interval)
    finite = "" if interval[-1] == "]" else " and finite"
    if math.isinf(high) and low == 0:
        return ("be positive" if interval[0] == "(" else "not be negative") + finite
    if math.isinf(high) and math.isfinite(low) and interval[0] == "(":
        return f"exceed {low:g}{finite}"
    return f"lie in {interval}"
