"""The record of a training run."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import Array, Float, Int

__all__ = ["History"]


class History(eqx.Module):
    """What happened during training; NaN where training had ended before.

    Attributes:
        loss: Mean training loss between validations, over the steps that were taken.
        validation_loss: First before any step, then after each round; all NaN without validation samples.
        best_round: Index into `validation_loss` of the parameters that were returned.
        steps: Steps done, skipped ones included.
        skipped: Steps skipped because the loss or the gradient was not finite.
    """

    loss: Float[Array, " rounds"]
    validation_loss: Float[Array, " rounds_and_1"]
    best_round: Int[Array, ""]
    steps: Int[Array, ""]
    skipped: Int[Array, ""]
