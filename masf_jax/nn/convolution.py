"""Convolutions on periodic grids, channels last."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["CircularConv", "circular_convolution", "pad_circular", "upsample"]


def pad_circular(x: Array, space: int, before: int, after: int) -> Array:
    """`before` and `after` cells more on either side of each spatial axis, taken from the other end."""
    for axis in range(x.ndim - 1 - space, x.ndim - 1):
        size = x.shape[axis]
        parts = [lax.slice_in_dim(x, size - before, size, axis=axis), x]
        if after:
            parts.append(lax.slice_in_dim(x, 0, after, axis=axis))
        x = jnp.concatenate(parts, axis=axis)
    return x


def upsample(x: Array, space: int) -> Array:
    """Each cell repeated twice along each spatial axis."""
    for axis in range(x.ndim - 1 - space, x.ndim - 1):
        x = jnp.repeat(x, 2, axis=axis)
    return x


def _convolve(x: Array, kernel: Array, stride: int) -> Array:
    """Circular convolution of x (B, *space, C) with kernel (3, …, C, D).

    One cell too many is padded on, and taken off again by a negative padding of the convolution: XLA's CPU
    convolution without any padding of its own is up to five times slower (jaxlib 0.10).
    """
    space = x.ndim - 2
    after = 1 if stride == 1 else 0  # an even size in steps of two never reads beyond the last cell
    letters = "HW"[:space]
    return lax.conv_general_dilated(
        pad_circular(x, space, 2, after),
        kernel,
        (stride,) * space,
        [(-1, 0)] * space,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )


def circular_convolution(
    x: Float[Array, "B *space C"], kernel: Float[Array, "*taps C D"], stride: int
) -> Float[Array, "B *less_space D"]:
    """y[j] = Σ_k x[stride·j + k - 1] kernel[k], indices of all spatial axes modulo the size, k ∈ {0, 1, 2}.

    Its gradients are a circular convolution with the flipped kernel, and one matrix product per tap. JAX's
    own are convolutions with other orders of axes, and within a loop XLA gives those to a CPU kernel that is
    many times slower (jaxlib 0.10; training step of a U-Net on a ring of 40: 42 ms against 8). Reverse mode
    only.
    """
    return _differentiable(x, kernel, stride)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _differentiable(x: Array, kernel: Array, stride: int) -> Array:
    return _convolve(x, kernel, stride)


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    space = x.ndim - 2
    spread = gradient
    if stride > 1:  # back on the places it was computed at
        inner = [(0, stride - 1, stride - 1)] * space
        spread = lax.pad(gradient, jnp.zeros((), gradient.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    flipped = jnp.swapaxes(jnp.flip(kernel, range(space)), -1, -2)
    padded, sizes = pad_circular(x, space, 1, 1), x.shape[1:-1]
    columns = gradient.reshape(-1, gradient.shape[-1])

    def tap(start: tuple[int, ...]) -> Array:
        stop = [i + size for i, size in zip(start, sizes, strict=True)]
        seen = lax.slice(padded, (0, *start, 0), (len(x), *stop, x.shape[-1]), (1, *(stride,) * space, 1))
        return seen.reshape(-1, x.shape[-1]).T @ columns

    taps = [tap(start) for start in itertools.product(range(3), repeat=space)]
    return _convolve(spread, flipped, 1), jnp.stack(taps).reshape(kernel.shape)


_differentiable.defvjp(_forward, _backward)


class CircularConv(nn.Module):
    """A convolution of width 3 in each of the `space` axes before the last, circular, with a bias.

    x (*batch, *space, C) → (*batch, *space / stride, features), as `circular_convolution`.
    """

    features: int
    space: int
    stride: int = 1
    kernel_init: Any = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch_and_space C"]) -> Float[Array, "*batch_and_less_space D"]:
        return nn.Conv(
            self.features,
            (3,) * self.space,
            strides=self.stride,
            padding="VALID",
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            conv_general_dilated=lambda x, kernel, strides, *_, **__: circular_convolution(
                x, kernel, strides[0]
            ),
        )(x)
