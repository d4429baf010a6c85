"""What the paper's network with two heads is trained to minimise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..denoisers.network import NetworkDenoiser
from ..diffusion.conditional import LiftedProcess

__all__ = ["dual_head_loss", "heads_of"]


def heads_of(network: NetworkDenoiser) -> Callable[[Array, Scalar], tuple[Array, Array]]:
    """From X_t and t to the network's two heads, m1 ≈ E[v_0 | X_t] and m2 ≈ E[w | X_t]."""

    def heads(x: Array, t: Scalar) -> tuple[Array, Array]:
        m1, m2 = network.heads(x, jnp.full_like(x, 0.5 * math.pi) * t)
        assert m2 is not None
        return m1, m2

    return heads


def dual_head_loss(
    network: NetworkDenoiser, process: LiftedProcess
) -> Callable[[Any, PRNGKeyArray, Array], Float[Array, ""]]:
    """The loss(params, key, states): mean of (m1 - v_0)² + (m2 - w)², t uniform in [0, 1].

    Source: Yoon et al., arXiv 2604.02889.

    Args:
        network: its structure, with two outputs; its parameters are replaced by the loss's first argument.
        process: whose X_t the network sees, of states normalised as the batches are.
    """

    def one(params: Any, key: PRNGKeyArray, v0: Array) -> Array:
        key_time, key_noise = jax.random.split(key)
        t, w = jax.random.uniform(key_time, (), v0.dtype), process.lifted(v0)
        m1, m2 = heads_of(network.with_params(params))(process.noised(key_noise, v0, w, t), t)
        return jnp.mean((m1 - v0) ** 2 + (m2 - w) ** 2)

    def loss(params: Any, key: PRNGKeyArray, states: Array) -> Float[Array, ""]:
        keys = jax.random.split(key, states.shape[0])
        return jnp.mean(jax.vmap(one, (None, 0, 0))(params, keys, states))

    return loss
