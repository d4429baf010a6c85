"""Arrays that users give (NumPy, masked, big-endian, JAX, xarray, pandas), as real numbers; NaN: missing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = [
    "booleans",
    "check_key",
    "model_step",
    "of_arrays",
    "one_state",
    "real_array",
    "step_numbers",
]

Function = TypeVar("Function", bound=Callable[..., Any])

_LAST_STEP = 2**31 - 1


def real_array(name: str, value: Any, cycles_first: bool = False) -> jax.Array:
    """`value` as a floating-point array of JAX: what is masked is NaN, float32 and float64 keep their type,
    integers are of the default one, and so are half-precision numbers, which LAPACK does not take.

    Args:
        name: of the argument, for messages.
        cycles_first: named dimensions ("time" or "cycle") must have the cycles first.

    Raises:
        ValueError: complex, text, dates or objects; a finite value that the type of the array cannot hold.
    """
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        return value if value.dtype.itemsize >= 4 else value.astype(float)
    dims = [str(each) for each in getattr(value, "dims", ())]
    late = [each for each in ("time", "cycle") if each in dims[1:]]
    if cycles_first and late:
        order = ", ".join(repr(each) for each in [late[0], *(each for each in dims if each != late[0])])
        raise ValueError(
            f"{name} has the dimensions ({', '.join(dims)}), but cycles come first: give "
            f"{name}.transpose({order})."
        )
    if isinstance(value, jax.Array):
        array: Any = value
    else:
        array = _as_numpy(name, value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must be real; got {array.dtype}: give its parts as values of their own.")
    if isinstance(array, jax.Array):
        return array.astype(float)
    masked = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    data = np.asarray(np.ma.getdata(array))
    known = data.dtype.kind == "f" and 4 <= data.dtype.itemsize <= 8
    target = jax.dtypes.canonicalize_dtype(data.dtype.newbyteorder("=") if known else float)
    if masked is not None and masked.any():
        data = np.where(masked, np.nan, data.astype(np.float64))
    with np.errstate(over="ignore", under="ignore"):
        result = data.astype(target)
    _check_range(name, data, result)
    return jnp.asarray(result)


def one_state(name: str, value: Any, shape: tuple[int, ...]) -> jax.Array:
    """`value` as one state of a model, of its shape and finite.

    Raises:
        ValueError: it is not.
    """
    state = real_array(name, value)
    if state.shape != shape:
        raise ValueError(f"{name} must be one state of shape {shape}; got {state.shape}.")
    known = not isinstance(state, Tracer) and state.is_fully_addressable
    if known and not np.isfinite(np.asarray(state)).all():
        raise ValueError(f"{name} holds NaN or Inf.")
    return state


def of_arrays(*names: str, alike: bool = True) -> Callable[[Function], Function]:
    """Decorator: those arguments come as `real_array`s, integers (which wrap) among them.

    `alike`: they must have one shape, of an `ensemble` that of a member; others would be broadcast.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def with_arrays(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            for name in names:
                bound.arguments[name] = real_array(name, bound.arguments[name])
            shapes = [bound.arguments[name].shape[name == "ensemble" :] for name in names]
            if alike and len(set(shapes)) > 1:
                told = " and ".join(f"a member of {name}" if name == "ensemble" else name for name in names)
                raise ValueError(f"{told} must have one shape; got {' and '.join(map(str, shapes))}.")
            return function(*bound.args, **bound.kwargs)

        return cast(Function, with_arrays)

    return decorate


def check_key(key: Any) -> None:
    """Raises TypeError for what is no random key."""
    if not isinstance(key, jax.Array | np.ndarray):
        meant = f"jax.random.key({key})" if isinstance(key, int | np.integer) else "jax.random.key(0)"
        raise TypeError(f"a key was expected: {meant}; got {key!r}"[:200] + ".")


def model_step(step: Any) -> jax.Array:
    """The number of a model step, an int32; refused where it is none."""
    given = step if isinstance(step, Tracer) else np.asarray(step)
    if given.shape != () or not jnp.issubdtype(given.dtype, jnp.integer):
        raise ValueError(f"step must be a whole number, that of the model steps done; got {step!r}.")
    if not isinstance(given, Tracer) and not 0 <= given <= _LAST_STEP:
        raise ValueError(f"step must be 0 to {_LAST_STEP}, the model steps done; got {step}.")
    return jnp.asarray(step, jnp.int32)


def _as_numpy(name: str, value: Any) -> np.ndarray:
    """As NumPy has it, masked arrays as such; numbers and booleans of any kind, also in object arrays."""
    if hasattr(value, "to_numpy") and not isinstance(value, np.ndarray):
        value = value.to_numpy()  # pandas, xarray, polars
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.dtype.kind == "O" and array.size:
        try:
            array = array.astype(np.float64)  # None and Python's own numbers
        except (TypeError, ValueError) as error:
            missing = next((each for each in array.ravel() if type(each).__name__ == "NAType"), None)
            more = ": fill what is missing with NaN" if missing is not None else ""
            raise ValueError(f"{name} must hold numbers; got objects{more} ({error}).") from error
    if array.dtype.kind not in "fiubc" and array.dtype.name != "bfloat16":
        hint = ": convert dates to numbers in the model's unit of time" if array.dtype.kind in "Mm" else ""
        raise ValueError(f"{name} must hold numbers; got {array.dtype}{hint}.")
    return array


def _check_range(name: str, given: np.ndarray, held: np.ndarray) -> None:
    """Refuses a finite value that became infinite, and values that all became zero."""
    lost = np.isinf(held) & np.isfinite(given)
    if lost.any():
        place = np.argwhere(lost)[0].tolist()
        raise ValueError(
            f"{name} holds {given[tuple(place)]} at {place}, beyond {held.dtype} (its largest number is "
            f"{np.finfo(held.dtype).max:.3g}): mask it if it stands for missing, change the units, or use "
            "float64 (jax_enable_x64; precision=float64)."
        )
    if given.size and not np.any(held != 0) and np.any(given != 0):
        raise ValueError(
            f"all values of {name} are below the smallest number of {held.dtype}: change the units, or use "
            "float64 (jax_enable_x64; precision=float64)."
        )


def booleans(name: str, value: Any) -> Any:
    """`value` as booleans: of numbers only 0 and 1 stand for such.

    Raises:
        ValueError: other numbers, NaN, masked entries, text.
    """
    if isinstance(value, jax.Array) and (isinstance(value, Tracer) or value.dtype == bool):
        return value.astype(bool)
    array = _as_numpy(name, value)
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.getmaskarray(array).any():
            raise ValueError(f"{name} is itself masked: fill it with False (or True) first.")
        array = array.data
    if array.dtype != bool and not np.all((array == 0) | (array == 1)):
        odd = array[~((array == 0) | (array == 1))].flat[0]
        raise ValueError(f"{name} must hold booleans, or 0 and 1; got {odd}.")
    return array.astype(bool)


def _meant_by_steps(array: np.ndarray, n_cycles: int, whole: bool) -> str:
    """What steps of a wrong shape or type may have been meant to be."""
    if array.shape == (n_cycles + 1,) and array[0] == 0:
        return "leave out step 0, where the first ensemble is, unless it has a row of values"
    if whole and array.ndim == 1:
        one = (
            f"; {array[0]} alone, not [{array[0]}], is so many steps from row to row"
            if len(array) == 1
            else ""
        )
        return f"the model step of each of the {n_cycles} rows of values{one}"
    if array.shape == (n_cycles,):
        return "of times, give np.round(times / dt).astype(int)"
    if array.ndim == 0:
        return "one number is a whole number of model steps from row to row, such as 3 for steps 3, 6, 9, …"
    return f"the model step of each of the {n_cycles} rows of values"


def step_numbers(steps: Any, n_cycles: int) -> int | Any:
    """Model steps of the observations: an int (the interval) or int32 numbers of each cycle.

    Raises:
        ValueError: not whole numbers, negative, decreasing, or beyond int32 (2 147 483 647).
    """
    if isinstance(steps, Tracer):
        return steps.astype(jnp.int32)
    array = _as_numpy("steps", steps)
    whole = array.dtype.kind in "iu"
    if array.ndim == 0 and whole:
        if array < 1:
            raise ValueError(f"steps between observations must be at least 1; got {array}.")
        if int(array) * n_cycles > _LAST_STEP:
            raise ValueError(f"{n_cycles} cycles of {array} steps end beyond step {_LAST_STEP} (int32).")
        return int(array)
    if array.shape != (n_cycles,) or not whole:
        raise ValueError(
            f"steps must hold {n_cycles} integers, one per cycle; got shape {array.shape}, {array.dtype}: "
            f"{_meant_by_steps(array, n_cycles, whole)}."
        )
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.getmaskarray(array).any():
            raise ValueError("steps must all be there; some are masked.")
        array = array.data
    if array[0] < 0 or np.any(array[1:] < array[:-1]):
        k = int(np.argmax(array[1:] < array[:-1])) if array[0] >= 0 else 0
        came = f"{array[0]}" if array[0] < 0 else f"{array[k + 1]} after {array[k]}"
        raise ValueError(f"steps must not be negative and must not decrease; got {came}.")
    if array[-1] > _LAST_STEP:
        raise ValueError(
            f"steps must not exceed {_LAST_STEP} (int32); got {array[-1]}: count from a later start, or "
            "make the model's step longer."
        )
    return array.astype(np.int32)
