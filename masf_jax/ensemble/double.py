"""Double precision where an analysis needs it, inside programs whose arrays are float32."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Bool, Float

__all__ = ["LOST", "SingleOnly", "any_of_batch", "exactly_where", "in_double", "round_off"]

Out = TypeVar("Out")

LOST = 0.01
"""Round-off, in posterior standard deviations, above which an analysis is made in double precision."""


def round_off(dtype: Any) -> float:
    """The largest relative error of one rounding, 6e-8 in float32."""
    return float(jnp.finfo(dtype).eps) / 2


def exactly_where(
    rounding: Float[Array, ""], exact: Callable[[Array], Out], fast: Callable[[Array], Out]
) -> Out:
    """`exact(rounding)` where `rounding` exceeds LOST or is not a number, else `fast(rounding)`.

    One of them runs, under `vmap` too: there `exact` for all runs if one of them needs it. Where a user's
    part has float32 written into it (`SingleOnly`), `fast` alone: its `rounding` flags what is lost.
    """
    lost = jnp.logical_not(jax.lax.stop_gradient(rounding) <= LOST)
    try:
        return jax.lax.cond(any_of_batch(lost), exact, fast, rounding)
    except SingleOnly:
        return fast(rounding)


class SingleOnly(TypeError):
    """A function that cannot be traced with float64 arguments: its types are written into it."""


def any_of_batch(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """The flag; under `vmap` one for all, whether any is set, so that one branch of a `cond` runs."""
    return _any_of_batch.bind(flag)


def in_double(function: Callable[..., Out], *args: Any, result: Any) -> Out:
    """function(*args) computed with float64 for all floating arrays in `args`, whatever `jax_enable_x64` is.

    `result`: the type to which floating results are rounded. May be compiled, batched and differentiated.
    Arrays that `function` closes over stay as they are.

    Raises:
        SingleOnly: a function that refuses float64.
    """
    arrays, static = eqx.partition(args, eqx.is_array)

    def cast(tree: Any, dtype: Any) -> Any:
        return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)

    def run(arrays: Any) -> Any:
        return cast(function(*eqx.combine(cast(arrays, jnp.float64), static)), result)

    with _double():
        if result == jnp.float64:
            return run(arrays)
        try:
            closed, shapes = jax.make_jaxpr(run, return_shape=True)(arrays)
        except TypeError as error:
            raise SingleOnly(f"not to be computed in float64: {error}") from error
    n = len(closed.consts)

    def flat(*leaves: Array) -> list[Array]:
        return jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, list(leaves[:n])))(*leaves[n:])

    leaves = (*closed.consts, *jax.tree.leaves(arrays))
    out = _call.bind(*leaves, function=flat, transposed=None, n_linear=0)
    return jax.tree.unflatten(jax.tree.structure(shapes), out)


@contextlib.contextmanager
def _double() -> Iterator[None]:
    module = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with module.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# JAX traces again when it batches, differentiates or lowers, and would take float64 for float32 there. This
# primitive holds the function untraced, and does all of that with float64 on. `function` is linear in its
# last `n_linear` arguments; `transposed` is its transpose, of the same other arguments.
_call = Primitive("in_double")
_call.multiple_results = True


@_call.def_impl
def _run(*args: Array, function: Callable, **_: Any) -> list[Array]:
    with _double():
        return jax.jit(function)(*args)


@_call.def_abstract_eval
def _shapes(*args: Any, function: Callable, **_: Any) -> list[Any]:
    with _double():
        shapes = jax.eval_shape(function, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args))
    return [ShapedArray(s.shape, s.dtype) for s in shapes]


def _lowered(context: Any, *args: Any, function: Callable, **_: Any) -> Any:
    with _double():
        return mlir.lower_fun(function, multiple_results=True)(context, *args)


def _batched(
    args: Any, axes: Any, *, function: Callable, transposed: Callable | None, n_linear: int
) -> tuple[list[Array], list[int]]:
    n = len(args) - n_linear
    size = next(a.shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)

    def in_front(a: Array, axis: int | None, linear: bool) -> Array:
        if axis is not None:
            return jnp.moveaxis(a, axis, 0)
        return jnp.broadcast_to(a[None], (size, *a.shape)) if linear else a

    moved = [in_front(a, axis, i >= n) for i, (a, axis) in enumerate(zip(args, axes, strict=True))]
    fixed = tuple(None if axis is None else 0 for axis in axes[:n])

    def many(each: Callable) -> Callable:
        return lambda *all: jax.vmap(each, fixed + (0,) * (len(all) - n))(*all)

    back = None if transposed is None else many(transposed)
    out = _call.bind(*moved, function=many(function), transposed=back, n_linear=n_linear)
    return out, [0] * len(out)


def _differentiated(
    primals: Any, tangents: Any, *, function: Callable, transposed: Callable | None, n_linear: int
) -> tuple[list[Array], list[Any]]:
    n = len(primals)
    out = _call.bind(*primals, function=function, transposed=transposed, n_linear=n_linear)
    moving = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of_moving(fixed: tuple) -> Callable:
        def moved(*values: Array) -> list[Array]:
            args = list(fixed)
            for i, value in zip(moving, values, strict=True):
                args[i] = value
            return function(*args)

        return moved

    def push(*both: Array) -> list[Array]:
        at = tuple(both[i] for i in moving)
        return jax.jvp(of_moving(both[:n]), at, tuple(both[n:]))[1]

    def pull(*both: Array) -> list[Array]:
        back = jax.vjp(of_moving(both[:n]), *(both[i] for i in moving))[1]
        return list(back(list(both[n:])))

    slopes = (tangents[i] for i in moving)
    return out, _call.bind(*primals, *slopes, function=push, transposed=pull, n_linear=len(moving))


def _transposed(
    cotangents: Any, *args: Any, function: Callable, transposed: Callable, n_linear: int
) -> list[Any]:
    n = len(args) - n_linear
    given = [ad.instantiate_zeros(c) for c in cotangents]
    back = _call.bind(*args[:n], *given, function=transposed, transposed=function, n_linear=len(given))
    return [None] * n + list(back)


# Whether a flag is set; under `vmap` one flag for the whole batch: whether any is set.
_any_of_batch = Primitive("any_of_batch")
_any_of_batch.def_impl(lambda flag: flag)
_any_of_batch.def_abstract_eval(lambda flag: flag)


def _one_flag(flags: Any, axes: Any) -> tuple[Array, None]:
    return _any_of_batch.bind(flags[0].any(axes[0])), None


def _no_slope(flags: Any, _: Any) -> tuple[Array, Any]:
    flag = _any_of_batch.bind(flags[0])
    return flag, ad.Zero.from_primal_value(flag)  # pyright: ignore[reportAttributeAccessIssue]


mlir.register_lowering(_any_of_batch, lambda context, flag: [flag])
batching.primitive_batchers[_any_of_batch] = _one_flag
ad.primitive_jvps[_any_of_batch] = _no_slope
mlir.register_lowering(_call, _lowered)
batching.primitive_batchers[_call] = _batched
ad.primitive_jvps[_call] = _differentiated
ad.primitive_transposes[_call] = _transposed
