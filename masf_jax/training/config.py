"""How long and how fast to train."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, TypeAlias, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.core import Tracer
from jaxtyping import Array, Float

__all__ = ["OPTIMISERS", "FitConfig", "Optimiser"]

Optimiser: TypeAlias = Literal["adamw", "muon"]
OPTIMISERS: tuple[Optimiser, ...] = get_args(Optimiser)
_MOST = {"learning_rate": math.inf, "weight_decay": math.inf, "ema_decay": 1.0, "clip": math.inf}


class FitConfig(eqx.Module):
    """Settings of `fit`; the defaults are those of Yoon et al. (arXiv 2604.02889) where the paper names them.

    Attributes:
        learning_rate: Of the optimiser, at the schedule's peak.
        weight_decay: Of the optimiser.
        ema_decay: Parameters are averaged as e ← d_k e + (1 - d_k) p after step k = 1, 2, …, with
            d_k = min(d, k/(k + 9)), so that the start is soon forgotten; None for no averaging.
        clip: Largest global norm of the gradient; None for no clipping.
        steps: Optimiser steps.
        batch_size: Samples a step, drawn without repetition within an epoch; with fewer samples than that,
            all of them, some several times (each time with its own noise).
        schedule: "cosine" falls to zero over the steps, "constant" stays, both after the warm-up.
        warmup_steps: Steps of linear growth of the learning rate from 0.
        betas: Of AdamW, and of muon's Adam.
        optimiser: "adamw", or "muon": the step of a matrix of weights is the orthogonal matrix next to its
            mean gradient, with the root mean square of AdamW's steps late in a training, .2 of the learning
            rate (Jordan 2024; Liu et al., arXiv 2502.16982); a convolution counts as the matrix from all its
            taps and channels to its results. Biases and scales go with Adam, Nesterov's.
        validation_fraction: Share of the samples held back for validation, chosen at random; 0 for none.
        validation_draws: Noise draws per validation sample; the same at every validation.
        validate_every: Steps between validations; a twentieth of the steps by default.
        patience: Validations without improvement after which training ends; None for never.
    """

    learning_rate: float | Float[Array, ""] = 3e-4
    weight_decay: float | Float[Array, ""] = 0.01
    ema_decay: float | Float[Array, ""] | None = 0.999
    clip: float | Float[Array, ""] | None = 1.0
    steps: int = eqx.field(static=True, default=1000)
    batch_size: int = eqx.field(static=True, default=32)
    schedule: str = eqx.field(static=True, default="cosine")
    warmup_steps: int = eqx.field(static=True, default=0)
    betas: tuple[float, float] = eqx.field(static=True, default=(0.9, 0.99))
    optimiser: Optimiser = eqx.field(static=True, default="adamw")
    validation_fraction: float = eqx.field(static=True, default=0.1)
    validation_draws: int = eqx.field(static=True, default=1)
    validate_every: int | None = eqx.field(static=True, default=None)
    patience: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        for name in ("steps", "batch_size", "validation_draws", "validate_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is None or isinstance(value, Tracer):
                continue
            if not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= most)):  # NaN neither
                raise ValueError(f"{name} must be a number from 0 to {most:g}, got {value}")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                f"warmup_steps must be at least 0 and below steps={self.steps}, got {self.warmup_steps}"
            )
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction must be at least 0 and below 1, got {self.validation_fraction}"
            )
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be 'cosine' or 'constant', got {self.schedule!r}")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)}; got {self.optimiser!r}")

    @property
    def round_length(self) -> int:
        """Steps between validations."""
        return min(self.steps, self.validate_every or max(1, math.ceil(self.steps / 20)))

    @property
    def rounds(self) -> int:
        """Number of validations after the first one, which is before any step."""
        return math.ceil(self.steps / self.round_length)

    def held_back(self, samples: int) -> int:
        """Number of samples, of as many as given, that are held back for validation."""
        return max(1, round(self.validation_fraction * samples)) if self.validation_fraction > 0 else 0

    def for_epochs(self, epochs: int, samples: int) -> FitConfig:
        """The same with as many steps as `epochs` passes over this many training samples take."""
        return dataclasses.replace(self, steps=epochs * max(1, samples // self.batch_size))

    def transformation(self) -> optax.GradientTransformation:
        """The optimiser with the schedule, behind the clipping; of trees of parameters."""
        warmup = self.warmup_steps
        factor = optax.constant_schedule(1.0)
        if self.schedule == "cosine":
            factor = optax.cosine_decay_schedule(1.0, self.steps - warmup)
        if warmup:
            factor = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), factor], [warmup])

        def rate(step: Any) -> Array:
            return jnp.asarray(self.learning_rate, jnp.float32) * jnp.asarray(factor(step), jnp.float32)

        b1, b2 = self.betas
        if self.optimiser == "muon":
            steps = optax.contrib.muon(
                rate,
                weight_decay=self.weight_decay,
                adam_b1=b1,
                adam_b2=b2,
                muon_weight_dimension_numbers=_matrices,
                consistent_rms=0.2,  # that of AdamW's steps
            )
        else:
            steps = optax.adamw(rate, b1=b1, b2=b2, weight_decay=self.weight_decay)
        return steps if self.clip is None else optax.chain(optax.clip_by_global_norm(self.clip), steps)


def _matrices(params: Any) -> Any:
    """How each array of weights is a matrix: from all its axes but the last to that; biases are none."""

    def one(x: Array) -> optax.contrib.MuonDimensionNumbers | None:
        if x.ndim < 2:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)

    return jax.tree.map(one, params)
