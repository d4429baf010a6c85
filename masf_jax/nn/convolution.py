"""Convolutions on periodic grids, channels last."""

from __future__ import annotations

import itertools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .products import convolve, interleaved

__all__ = ["CircularConv", "circular_convolution", "upsampled_convolution"]


def circular_convolution(
    x: Float[Array, "B *space C"], kernel: Float[Array, "*taps C D"], stride: int = 1
) -> Float[Array, "B *less_space D"]:
    """y[j] = Σ_k x[stride·j + k - 1] kernel[k], indices of all spatial axes modulo the size, k ∈ {0, 1, 2}.

    All its derivatives, also under `vmap`, are made of the products of products.py.

    Raises:
        ValueError: A stride other than 1 or 2, or an odd size with stride 2.
    """
    if stride not in (1, 2) or (stride == 2 and any(size % 2 for size in x.shape[1:-1])):
        raise ValueError(
            f"a circular convolution takes stride 1, or 2 where all sizes are even; got stride {stride} "
            f"for the sizes {x.shape[1:-1]}"
        )
    return convolve(x, kernel, stride, (1,) * (x.ndim - 2))


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
        phases.append(convolve(x, taps, 1, tuple(1 - p for p in phase)))
    return interleaved(phases)


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
        def circular(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
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
            conv_general_dilated=circular,
        )(x)
