"""Our U-Net as compiled calls: forward, training step (loss, gradient, clipping, AdamW), a loop of steps."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from masf_jax.nn import UNet, parameter_count

__all__ = ["STEPS", "Call", "unet_calls"]

STEPS = 2
"""Of a compiled loop."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A compiled call: the kind of work, its steps, and the seconds that its compilation took."""

    job: str
    steps: int
    run: Callable[[], Any]
    compilation: float


def unet_calls(net: UNet, size: int, batch: int, lone: bool = True) -> tuple[int, dict[str, Call]]:
    """Number of parameters, and calls by name: forward, training in a loop of STEPS, a lone training step."""
    x = jax.random.normal(jax.random.key(0), (batch, size, size, 2))
    t = jnp.full(batch, 0.5)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(net.init, jax.random.key(1), x[0], t[0])
    params = jax.tree.map(lambda s: jnp.asarray(0.02 * rng.standard_normal(s.shape), s.dtype), shapes)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6, weight_decay=0.01))
    apply = jax.vmap(net.apply, (None, 0, 0))

    def step(params: Any, state: Any, x: Any, t: Any) -> tuple[Any, Any]:
        gradient = jax.grad(lambda params: jnp.mean((apply(params, x, t) - x) ** 2))(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def loop(params: Any, state: Any, x: Any, t: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda c, _: (step(*c, x, t), None), (params, state), None, length=STEPS)[0]

    begun = time.perf_counter()
    forward = jax.jit(apply).lower(params, x, t).compile()
    compiled = time.perf_counter() - begun

    def training(steps: Callable[..., Any], count: int) -> Call:
        begun = time.perf_counter()
        call = jax.jit(steps, donate_argnums=(0, 1)).lower(params, optimiser.init(params), x, t).compile()
        compiled = time.perf_counter() - begun
        held = [jax.tree.map(jnp.copy, params), optimiser.init(params)]

        def train() -> None:
            held[:] = call(*held, x, t)
            jax.block_until_ready(held)

        return Call("training", count, train, compiled)

    run = lambda: jax.block_until_ready(forward(params, x, t))  # noqa: E731
    calls = {"forward": Call("forward", 1, run, compiled)}
    if lone:
        calls["training"] = training(step, 1)
    return parameter_count(params), calls | {"training in a loop": training(loop, STEPS)}
