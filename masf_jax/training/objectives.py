"""What a denoiser is trained to minimise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..denoisers.hybrid import HybridDenoiser
from ..denoisers.network import NetworkDenoiser
from ..diffusion.process import Process

__all__ = ["denoising_loss", "process_angles", "uniform_angle"]

AngleSampler = Callable[[PRNGKeyArray], Float[Array, "..."]]

_FLOOR = 0.01  # added to sin²φ in the weights, so that nearly noise-free draws do not dominate
_TINY = 1e-6  # keeps the likelihood's ratio finite at φ = 0


def uniform_angle(lowest: float = 0.0, highest: float = math.pi / 2) -> AngleSampler:
    """One angle for all components, uniform between the two (radians)."""

    def sample(key: PRNGKeyArray) -> Float[Array, ""]:
        return jax.random.uniform(key, minval=lowest, maxval=highest)

    return sample


def process_angles(process: Process, last: float = 1.0) -> AngleSampler:
    """From a key, the noise-level map of `process` at a time uniform in [0, last]."""

    def sample(key: PRNGKeyArray) -> Array:
        return process.angle(jax.random.uniform(key, (), process.measured.dtype, maxval=last))

    return sample


def denoising_loss(
    denoiser: NetworkDenoiser | HybridDenoiser,
    angles: AngleSampler,
    *,
    weighted: bool = True,
    robust: bool = False,
) -> Callable[[Any, PRNGKeyArray, Any], Float[Array, ""]]:
    """The loss(params, key, batch) that makes D(x, φ) the mean of x0 given x = cos φ · x0 + sin φ · η.

    Mean over the batch and all components of w·(D(x, φ) - x0)², with an own map φ and noise η per sample and
    w = 1/(sin²φ + 0.01), or w = 1 if not `weighted`. With a variance head the mean of
    ½ r² + log s, r = (x0 - D)/(s sin φ), is added, s the learned factor on sin φ: the Gaussian likelihood of
    x0 up to a term that does not depend on the parameters. D is held fixed in it, so the head
    does not change what the mean is fitted to.

    Args:
        denoiser: Its structure; its parameters are replaced by the loss's first argument.
        angles: From a key, a map φ of the state's shape, or one number for all components (radians).
        weighted: See above. The paper trains with w = 1.
        robust: Divide the loss of a sample by max(1, mean(x0²)/4): samples far outside the others, as truths
            where a filter lost track, then count like those two deviations out.

    The batch is an array (B, *state) of normalised x0, or a pair of that and features (B, f, *space).
    """

    def one(params: Any, key: PRNGKeyArray, x0: Array, features: Array | None) -> Array:
        member = denoiser.with_params(params)
        if features is not None and isinstance(member, NetworkDenoiser):
            member = member.with_features(features)
        key_angle, key_noise = jax.random.split(key)
        angle = jnp.broadcast_to(angles(key_angle).astype(x0.dtype), x0.shape)
        noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
        mean, log = member.mean_and_log_factor(jnp.cos(angle) * x0 + jnp.sin(angle) * noise, angle)
        squared = (mean - x0) ** 2
        variance = jnp.sin(angle) ** 2
        loss = jnp.mean(squared / (variance + _FLOOR) if weighted else squared)
        scale = jnp.maximum(1.0, jnp.mean(x0**2) / 4) if robust else 1.0
        if log is None:
            return loss / scale
        ratio = jax.lax.stop_gradient(squared / (variance + _TINY)) * jnp.exp(-2 * log)
        return (loss + jnp.mean(0.5 * ratio + log)) / scale

    def loss(params: Any, key: PRNGKeyArray, batch: Any) -> Float[Array, ""]:
        x0, features = batch if isinstance(batch, tuple) else (batch, None)
        keys = jax.random.split(key, x0.shape[0])
        in_axes = (None, 0, 0, None if features is None else 0)
        return jnp.mean(jax.vmap(one, in_axes)(params, keys, x0, features))

    return loss
