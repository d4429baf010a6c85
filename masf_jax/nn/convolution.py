"""Convolutions on periodic grids, channels last."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

__all__ = ["CircularConv", "circular_convolution", "pad_circular", "upsampled_convolution"]

_ORDERS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC")}  # of axes, the only ones fast in loops


def pad_circular(x: Array, before: tuple[int, ...], after: tuple[int, ...]) -> Array:
    """`before` and `after` cells more on the sides of each spatial axis, taken from the other end."""
    for axis, b, a in zip(range(x.ndim - 1 - len(before), x.ndim - 1), before, after, strict=True):
        size = x.shape[axis]
        parts = [lax.slice_in_dim(x, size - b, size, axis=axis), x, lax.slice_in_dim(x, 0, a, axis=axis)]
        x = jnp.concatenate([part for part in parts if part.shape[axis]], axis=axis)
    return x


def circular_convolution(
    x: Float[Array, "B *space C"], kernel: Float[Array, "*taps C D"], stride: int = 1
) -> Float[Array, "B *less_space D"]:
    """y[j] = Σ_k x[stride·j + k - 1] kernel[k], indices of all spatial axes modulo the size, k ∈ {0, 1, 2}.

    Its gradients are written as ordinary convolutions of their own (jaxlib 0.10 on a CPU): JAX's have other
    orders of axes, which XLA puts right outside of loops only; within one they go to a kernel that is up to
    a hundred times slower. They are the transposes of linear maps made of primitives, so forward mode works,
    and under `vmap` with one kernel for all, samples become one batch and the kernel's gradient one product.

    Raises:
        ValueError: A stride other than 1 or 2, or an odd size with stride 2.
    """
    if stride not in (1, 2) or (stride == 2 and any(size % 2 for size in x.shape[1:-1])):
        raise ValueError(
            f"a circular convolution takes stride 1, or 2 where all sizes are even; got stride {stride} "
            f"for the sizes {x.shape[1:-1]}"
        )
    return _differentiable(x, kernel, stride, (1,) * (x.ndim - 2))


def upsampled_convolution(
    x: Float[Array, "B *space C"], kernel: Float[Array, "*taps C D"]
) -> Float[Array, "B *more_space D"]:
    """The circular convolution of x with each cell repeated twice along each spatial axis.

    Of a repeated cell, two of the three taps see the same value: the places 2i + p of the result are a
    convolution of x itself with two taps, (W_0, W_1 + W_2) on x[i - 1], x[i] for p = 0 and (W_0 + W_1, W_2)
    on x[i], x[i + 1] for p = 1; 4/9 of the multiplications in two dimensions.
    """
    space = x.ndim - 2
    phases = []
    for phase in itertools.product((0, 1), repeat=space):
        taps = kernel
        for axis, p in enumerate(phase):
            w = [lax.index_in_dim(taps, k, axis) for k in range(3)]
            taps = jnp.concatenate([w[0] + w[1], w[2]] if p else [w[0], w[1] + w[2]], axis)
        phases.append(_differentiable(x, taps, 1, tuple(1 - p for p in phase)))
    return _interleaved(phases)


def _interleaved(phases: list[Array]) -> Array:
    """One array from those of its places 2i + p, in the order of `itertools.product` of p."""
    space = phases[0].ndim - 2
    for axis in range(space, 0, -1):  # p of the last axis changes fastest
        pairs = zip(phases[::2], phases[1::2], strict=True)
        phases = [jnp.stack(pair, axis + 1) for pair in pairs]
        phases = [y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :]) for y in phases]
    return phases[0]


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _differentiable(x: Array, kernel: Array, stride: int, before: tuple[int, ...]) -> Array:
    return _convolve(x, kernel, stride, before)


@partial(_differentiable.defjvp, symbolic_zeros=True)
def _tangent(stride: int, before: tuple[int, ...], primals: Any, tangents: Any) -> tuple[Array, Array]:
    """Both gradients transposed, so that reverse mode is the gradients themselves."""
    x, kernel = primals
    y = _convolve(x, kernel, stride, before)
    parts = []
    if not isinstance(tangents[0], SymbolicZero):
        by_input = partial(_gradient_of_input, kernel=kernel, stride=stride, before=before)
        parts.extend(jax.linear_transpose(by_input, y)(tangents[0]))
    if not isinstance(tangents[1], SymbolicZero):
        by_kernel = partial(_gradient_of_kernel, x=x, stride=stride, before=before, taps=kernel.shape[:-2])
        parts.extend(jax.linear_transpose(by_kernel, y)(tangents[1]))
    if not parts:
        return y, jnp.zeros_like(y)
    return y, sum(parts[1:], parts[0])


def _padded(x: Array, taps: tuple[int, ...], stride: int, before: tuple[int, ...]) -> Array:
    """x with the cells the taps reach into, and one more in front of each axis."""
    # an even size in steps of two never reads beyond the last cell
    after = tuple(k - 1 - b if stride == 1 else 0 for k, b in zip(taps, before, strict=True))
    return pad_circular(x, tuple(b + 1 for b in before), after)


def _mirrored(taps: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    """Number of taps behind the place, which are those before it for the flipped kernel."""
    return tuple(k - 1 - b for k, b in zip(taps, before, strict=True))


def _convolve(x: Array, kernel: Array, stride: int, before: tuple[int, ...]) -> Array:
    """y[j] = Σ_k x[stride·j + k - before] kernel[k].

    One cell too many is padded on, and taken off again by a negative padding of the convolution: XLA's CPU
    convolution without any padding of its own is up to five times slower (jaxlib 0.10).
    """
    space = x.ndim - 2
    return lax.conv_general_dilated(
        _padded(x, kernel.shape[:space], stride, before),
        kernel,
        (stride,) * space,
        [(-1, 0)] * space,
        dimension_numbers=_ORDERS[space],
    )


def _gradient_of_input(gradient: Array, kernel: Array, stride: int, before: tuple[int, ...]) -> Array:
    """Σ over places and output channels, for each x: the convolution with the flipped kernel.

    With stride 2, the places 2i are seen by the middle tap only, the places 2i + 1 by the two others. The
    barriers keep the change of the kernel out of the convolution, which would have another order of axes.
    """
    space = gradient.ndim - 2
    kernel = jnp.swapaxes(kernel, -1, -2)
    if stride == 1:
        flipped = lax.optimization_barrier(jnp.flip(kernel, range(space)))
        return _convolve(gradient, flipped, 1, _mirrored(kernel.shape[:space], before))
    phases = []
    for phase in itertools.product((0, 1), repeat=space):
        taps = kernel[tuple(slice(2, None, -2) if p else slice(1, 2) for p in phase)]
        phases.append(_convolve(gradient, lax.optimization_barrier(taps), 1, (0,) * space))
    return _interleaved(phases)


def _gradient_of_kernel(
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


class CircularConv(nn.Module):
    """A convolution of width 3 in each of the `space` axes before the last, circular, with a bias.

    x (*batch, *space, C) → (*batch, *space / stride, features), as `circular_convolution`; with `upsample`
    (*batch, 2·*space, features), as `upsampled_convolution`.
    """

    features: int
    space: int
    stride: int = 1
    upsample: bool = False
    kernel_init: Any = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch_and_space C"]) -> Float[Array, "*batch_and_new_space D"]:
        def convolve(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
            if self.upsample:
                return upsampled_convolution(x, kernel)
            return circular_convolution(x, kernel, self.stride)

        return nn.Conv(
            self.features,
            (3,) * self.space,
            strides=self.stride,
            padding="VALID",
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            conv_general_dilated=convolve,
        )(x)
