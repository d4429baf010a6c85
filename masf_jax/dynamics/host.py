"""A host function as JAX calls it, and its exceptions as they were raised."""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array

from ..callables import Plain, callable_name, unwrapped

__all__ = ["BlackBoxError", "Host", "host_errors"]


class BlackBoxError(RuntimeError):
    """A black-box model raised an exception, or gave back no states.

    `__cause__` is the exception, with its own traceback.
    """


@dataclasses.dataclass(frozen=True)
class Host:
    """The function as JAX calls it; hashable, as the parameters of a traced program must be."""

    function: Plain
    state_shape: tuple[int, ...]
    n_arguments: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Of the parameters."""

    def __call__(self, x: Array, time: Array, numbers: dict[str, Array]) -> np.ndarray:
        try:
            return self._called(np.asarray(x), np.unique(np.asarray(time)), numbers)
        except Exception as error:  # jaxlib makes a text of it, this keeps it for `host_errors`
            _failed.append((self, error, np.shape(x)))
            raise

    def _called(self, states: np.ndarray, times: np.ndarray, numbers: dict[str, Array]) -> np.ndarray:
        if times.size != 1:
            raise BlackBoxError(f"BlackBox advances all members from one model time; got {times}.")
        given = {name: (np.asarray(numbers[name]), shape) for name, shape in self.shapes}
        batch = np.broadcast_shapes(
            *(_batch(array, shape) for array, shape in ((states, self.state_shape), *given.values()))
        )
        members = _members(states, self.state_shape, batch)
        shape = members.shape  # which the function might change
        named = {name: _members(array, shape, batch) for name, (array, shape) in given.items()}
        out = np.asarray(unwrapped(self.function)(*(members, float(times[0]))[: self.n_arguments], **named))
        if out.shape != shape:
            one = " It was written for one member, it seems." if out.shape == self.state_shape else ""
            raise BlackBoxError(
                f"the black-box function must return shape {shape} (members, *state_shape), "
                f"the shape it was given; got {out.shape}.{one}"
            )
        return out.astype(states.dtype).reshape(*batch, *self.state_shape)


def _batch(array: np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions that members lie along."""
    return array.shape[: array.ndim - len(shape)]


def _members(array: np.ndarray, shape: tuple[int, ...], batch: tuple[int, ...]) -> np.ndarray:
    """(members, *shape), a copy: a function may change it in place."""
    return np.broadcast_to(array, (*batch, *shape)).reshape(-1, *shape).copy()


_failed: list[tuple[Host, Exception, tuple[int, ...]]] = []
"""What host functions raised since `host_errors` began, and the shape of the states they were given."""


@contextlib.contextmanager
def host_errors() -> Iterator[None]:
    """Raises BlackBoxError from a host function's own exception, in place of jaxlib's text of all frames."""
    _failed.clear()
    try:
        yield
    except jax.errors.JaxRuntimeError as text:
        error = host_error(text)
        if error is None:
            raise
        raise error from error.__cause__
    finally:
        _failed.clear()


def host_error(error: Exception) -> BlackBoxError | None:
    """What a black-box model did wrong, where jaxlib's error comes from one; None of any other error."""
    if isinstance(error, BlackBoxError):
        return error
    if not isinstance(error, jax.errors.JaxRuntimeError) or not _failed:
        return None
    host, cause, shape = _failed[0]
    if isinstance(cause, BlackBoxError):
        return cause
    name = callable_name(unwrapped(host.function))
    last = traceback.extract_tb(cause.__traceback__)[-1]
    found = BlackBoxError(
        f"the black-box function {name} raised {type(cause).__name__}: {cause} ({last.filename}, line "
        f"{last.lineno}). It was given all members at once, states of shape {shape}: (members, "
        "*state_shape); a function of one member is called in a loop over them."
    )
    found.__cause__ = cause
    return found
