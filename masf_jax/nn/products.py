"""The convolution of a circular grid and its two gradients: three products of one trilinear form.

T(x, W, g) = Σ over samples, places j and taps k of g[j]ᵀ W[k]ᵀ x[stride·j + k - before], indices modulo the
size. Each of x, W and g has a gradient of T, bilinear in the two others, and those are one another's
transposes: so they are forms of one JAX primitive, which every derivative, also of a vmapped call, is made of
again.
JAX's own transposes of convolutions have other orders of axes, which XLA puts right outside of loops only
(jaxlib 0.10, CPU); within one they go to a kernel that is up to a hundred times slower.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

__all__ = ["convolve", "interleaved", "pad_circular"]

_ORDERS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC")}  # of axes, the only ones fast in loops
_CACHE = 16e6
"""Bytes up to which an array is read again and again at no cost (CPU, measured)."""
_WIDE = 64
"""Channels from which on products with stride 1 are fast."""


def convolve(
    x: Float[Array, "B *space C"],
    kernel: Float[Array, "*taps C D"],
    stride: int,
    before: tuple[int, ...],
) -> Float[Array, "B *less_space D"]:
    """y[j] = Σ_k x[stride·j + k - before] kernel[k], indices modulo the size: T's gradient in g."""
    taps = kernel.shape[: x.ndim - 2]
    return _product.bind(x, kernel, form="result", stride=stride, before=before, taps=taps)


def pad_circular(x: Array, before: tuple[int, ...], after: tuple[int, ...]) -> Array:
    """`before` and `after` cells more on the sides of each spatial axis, taken from the other end."""
    for axis, b, a in zip(range(x.ndim - 1 - len(before), x.ndim - 1), before, after, strict=True):
        size = x.shape[axis]
        parts = [lax.slice_in_dim(x, size - b, size, axis=axis), x, lax.slice_in_dim(x, 0, a, axis=axis)]
        x = jnp.concatenate([part for part in parts if part.shape[axis]], axis=axis)
    return x


def interleaved(phases: list[Array]) -> Array:
    """One array from those of its places 2i + p, in the order of `itertools.product` of p."""
    space = phases[0].ndim - 2
    for axis in range(space, 0, -1):  # p of the last axis changes fastest
        pairs = zip(phases[::2], phases[1::2], strict=True)
        phases = [jnp.stack(pair, axis + 1) for pair in pairs]
        phases = [y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :]) for y in phases]
    return phases[0]


def _padded(x: Array, taps: tuple[int, ...], stride: int, before: tuple[int, ...], more: int = 1) -> Array:
    """x with the cells the taps reach into, and so many more in front of each axis."""
    # an even size in steps of two never reads beyond the last cell
    after = tuple(k - 1 - b if stride == 1 else 0 for k, b in zip(taps, before, strict=True))
    return pad_circular(x, tuple(b + more for b in before), after)


def _mirrored(taps: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    """Number of taps behind the place, which are those before it for the flipped kernel."""
    return tuple(k - 1 - b for k, b in zip(taps, before, strict=True))


def _result(x: Array, kernel: Array, stride: int, before: tuple[int, ...], taps: tuple[int, ...]) -> Array:
    """One cell too many is padded on, and taken off again by a negative padding of the convolution.

    XLA's CPU convolution without any padding of its own is up to five times slower (jaxlib 0.10).
    """
    space = x.ndim - 2
    return lax.conv_general_dilated(
        _padded(x, taps, stride, before),
        kernel,
        (stride,) * space,
        [(-1, 0)] * space,
        dimension_numbers=_ORDERS[space],
    )


def _by_input(
    gradient: Array, kernel: Array, stride: int, before: tuple[int, ...], taps: tuple[int, ...]
) -> Array:
    """Σ over places and output channels, for each x: the convolution with the flipped kernel.

    With stride 2, the places 2i are seen by the middle tap only, the places 2i + 1 by the two others. The
    barriers keep the change of the kernel out of the convolution, which would have another order of axes.
    """
    space = gradient.ndim - 2
    kernel = jnp.swapaxes(kernel, -1, -2)
    if stride == 1:
        flipped = lax.optimization_barrier(jnp.flip(kernel, range(space)))
        return _result(gradient, flipped, 1, _mirrored(taps, before), taps)
    phases = []
    for phase in itertools.product((0, 1), repeat=space):
        part = kernel[tuple(slice(2, None, -2) if p else slice(1, 2) for p in phase)]
        part = lax.optimization_barrier(part)
        phases.append(_result(gradient, part, 1, (0,) * space, part.shape[:space]))
    return interleaved(phases)


def _by_kernel(
    gradient: Array, x: Array, stride: int, before: tuple[int, ...], taps: tuple[int, ...]
) -> Array:
    """Σ over places and samples, for each tap: a convolution with places for taps, samples for channels.

    What is moved across is x, or the gradient if it has far fewer channels (the last layer of a network: 1 ms
    against 9). The barriers keep the order of axes as written.
    """
    space = x.ndim - 2
    places = tuple(range(1, space + 1))
    swap = stride == 1 and 4 * gradient.shape[-1] < x.shape[-1]
    if swap:
        large, small = x, _padded(gradient, taps, 1, _mirrored(taps, before))
    else:
        large, small = gradient, _padded(x, taps, stride, before)
    y = lax.conv_general_dilated(
        lax.optimization_barrier(jnp.transpose(small, (space + 1, *places, 0))),
        lax.optimization_barrier(jnp.transpose(large, (*places, 0, space + 1))),
        (1,) * space,
        [(-1, 0)] * space,
        rhs_dilation=(stride,) * space,
        dimension_numbers=_ORDERS[space],
    )
    if swap:
        return jnp.flip(jnp.transpose(y, (*places, space + 1, 0)), range(space))
    return jnp.transpose(y, (*places, 0, space + 1))


def _by_kernel_on_cpu(
    gradient: Array, x: Array, stride: int, before: tuple[int, ...], taps: tuple[int, ...]
) -> Array:
    """The same, sample by sample, as matrix products of all taps of a row, where these are faster.

    Of 10 samples, one thread: 430 → 280 ms at 128² from 64 channels to 64, 430 → 190 ms at 64² from 128 to
    128, 187 → 70 ms with stride 2 at 128² from 64 to 64. Within the cache, or to fewer than 64 channels, the
    convolution is as good or better (37 against 54 ms at 64² from 64 to 64, 270 against 316 at 128² from 96
    to 32).
    """
    space, outgrown = x.ndim - 2, gradient if stride == 1 else x
    wide = stride > 1 or gradient.shape[-1] >= _WIDE
    if space == 1 or not wide or outgrown.size * x.dtype.itemsize <= _CACHE:
        return _by_kernel(gradient, x, stride, before, taps)
    rows, columns = gradient.shape[1:3]
    channels = taps[1] * x.shape[-1]

    def starts(first: int, count: int) -> slice:
        return slice(first, first + stride * (count - 1) + 1, stride)

    def add(total: Array, sample: tuple[Array, Array]) -> tuple[Array, None]:
        g, x = sample
        x = _padded(x[None], taps, stride, before, more=0)[0]
        seen = jnp.concatenate([x[:, starts(k, columns)] for k in range(taps[1])], -1)
        products = [
            seen[starts(k, rows)].reshape(-1, channels).T @ g.reshape(-1, g.shape[-1]) for k in range(taps[0])
        ]
        return total + jnp.stack(products), None

    none = jnp.zeros((taps[0], channels, gradient.shape[-1]), x.dtype)
    return lax.scan(add, none, (gradient, x))[0].reshape(*taps, x.shape[-1], gradient.shape[-1])


_FORMS = {"result": _result, "input": _by_input, "kernel": _by_kernel}
_product = Primitive("circular_product")
"""Bilinear in its two arguments: (x, W), (g, W) or (g, x), by `form`."""


def _of_form(a: Array, b: Array, *, form: str, **how: Any) -> Array:
    return _FORMS[form](a, b, **how)


def _of_form_on_cpu(a: Array, b: Array, *, form: str, **how: Any) -> Array:
    return _by_kernel_on_cpu(a, b, **how) if form == "kernel" else _of_form(a, b, form=form, **how)


def _shape(a: Any, b: Any, *, form: str, stride: int, before: tuple[int, ...], taps: tuple[int, ...]) -> Any:
    space = a.shape[1:-1]
    if form == "result":
        shape = a.shape[0], *(size // stride for size in space), b.shape[-1]
    elif form == "input":
        shape = a.shape[0], *(size * stride for size in space), b.shape[-2]
    else:
        shape = *taps, b.shape[-1], a.shape[-1]
    return ShapedArray(shape, a.dtype)


def _by_first(cotangent: Array, a: Any, b: Array, *, form: str, **how: Any) -> Array:
    """The gradient in the first argument, of each form by another."""
    if form == "kernel":
        return _product.bind(b, cotangent, form="result", **how)
    return _product.bind(cotangent, b, form="input" if form == "result" else "result", **how)


def _by_second(cotangent: Array, a: Array, b: Any, *, form: str, **how: Any) -> Array:
    if form == "result":
        return _product.bind(cotangent, a, form="kernel", **how)
    return _product.bind(a, cotangent, form="input" if form == "kernel" else "kernel", **how)


def _batched(arguments: Any, axes: Any, *, form: str, **how: Any) -> tuple[Array, int]:
    """Of one kernel for all, samples become one batch; else one product after another."""
    (a, b), (i, j) = arguments, axes
    if j is None and form != "kernel":
        a = jnp.moveaxis(a, i, 0)
        found = _product.bind(a.reshape(-1, *a.shape[2:]), b, form=form, **how)
        return found.reshape(*a.shape[:2], *found.shape[1:]), 0
    pairs = tuple(x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in ((a, i), (b, j)))

    def one(own: tuple[Array | None, Array | None]) -> Array:
        pair = (x if axis is None else given for x, axis, given in zip(pairs, axes, own, strict=True))
        return _product.bind(*pair, form=form, **how)

    return lax.map(one, tuple(None if k is None else x for x, k in zip(pairs, axes, strict=True))), 0


_product.def_impl(_of_form)
_product.def_abstract_eval(_shape)
ad.defbilinear(_product, _by_first, _by_second)
batching.primitive_batchers[_product] = _batched
mlir.register_lowering(_product, mlir.lower_fun(_of_form, multiple_results=False))
mlir.register_lowering(_product, mlir.lower_fun(_of_form_on_cpu, multiple_results=False), platform="cpu")
