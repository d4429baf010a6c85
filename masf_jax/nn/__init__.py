"""Flax networks for denoisers: channels last, conditioned on the diffusion time."""

from .describe import (
    describe as describe,
    from_description as from_description,
    parameter_count as parameter_count,
)
from .mlp import MLP as MLP
from .unet import UNet as UNet
