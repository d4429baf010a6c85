"""Which network for which state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..coordinates import Coordinates
from ..nn import MLP, UNet
from .network import NetworkDenoiser, Preconditioning

__all__ = ["Architecture"]


_LEAST = {"width": 1, "depth": 0, "member_width": 0, "memory": 0, "channels": 1, "blocks": 0}
_FEW = 8  # places of an axis: as many are variables rather than a side of a grid


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network by the shape of the state: an MLP for vectors, a circular U-Net for rings and fields.

    Args:
        width, depth: of the MLP.
        member_width: channels of what the network keeps of each member; 0: it sees none.
        memory: channels that it gives itself for the next cycle; 0: none.
        channels, multipliers, blocks, attention: of the U-Net (see `UNet`).
        layout: "vector" (any state, flattened), "ring" (n,) or (C, n), "field" (ny, nx) or (C, ny, nx);
            None: by the state's shape, "vector" for fewer than 16 components or more than three axes, and of
            two axes "ring" where the first has fewer than 8 places (variables on one axis), or the model's
            coordinates are of the second alone (`at`).
        noise_map, preconditioning, variance_head: see `NetworkDenoiser`.

    Raises:
        ValueError: a size below 1 (of depth, blocks, member_width and memory below 0), or no multipliers.
    """

    width: int = 128
    depth: int = 3
    member_width: int = 0
    memory: int = 0
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = ()
    layout: Literal["vector", "ring", "field"] | None = None
    noise_map: bool = True
    preconditioning: Preconditioning = "edm"
    variance_head: bool = False

    def __post_init__(self) -> None:
        sizes = [(name, getattr(self, name), least) for name, least in _LEAST.items()]
        for name, value, least in (*sizes, *(("multipliers", each, 1) for each in self.multipliers)):
            if value < least:
                raise ValueError(f"{name} of a network must be at least {least}; got {value}.")
        if not self.multipliers:
            raise ValueError("multipliers of a network must name one level at least; got none.")

    def at(self, coordinates: Coordinates | None, shape: Sequence[int]) -> Architecture:
        """The same; a "ring" where the places of a model are those of the second of two axes."""
        several = coordinates is not None and len(shape) == 2 and coordinates.n_points == shape[1]
        on_a_ring = several and self.layout is None and _layout(shape) == "field"
        return dataclasses.replace(self, layout="ring") if on_a_ring else self

    def create(
        self,
        key: PRNGKeyArray,
        shape: Sequence[int],
        features: Float[Array, "..."] | None = None,
        members: Float[Array, "..."] | None = None,
    ) -> NetworkDenoiser:
        """A fresh denoiser for states of `shape`; `features`, `members`: what else it sees.

        Raises:
            ValueError: a shape that the network does not suit.
        """
        return NetworkDenoiser.create(
            key,
            self.net(shape),
            tuple(shape),
            features=features,
            layout=self.form(shape)[0],
            noise_map=self.noise_map,
            preconditioning=self.preconditioning,
            variance_head=self.variance_head,
            members=members if self.member_width else None,
        )

    def mean_feature(self, shape: Sequence[int]) -> Float[Array, "..."]:
        """Zeros of the shape of the features of a network that sees one estimate of the state."""
        layout, space, _ = self.form(shape)
        return jnp.zeros(tuple(shape) if layout == "vector" or len(shape) > space else (1, *shape))

    def net(self, shape: Sequence[int]) -> MLP | UNet:
        """The network itself, without parameters, for states of `shape`."""
        layout, space, channels = self.form(shape)
        head = channels if self.variance_head else None
        if layout == "vector":
            return MLP(
                channels,
                self.width,
                self.depth,
                second_head=head,
                member_width=self.member_width,
                memory=self.memory,
            )
        return UNet(
            channels,
            self.channels,
            self.multipliers,
            self.blocks,
            self.attention,
            second_head=head,
            member_width=self.member_width,
            memory=self.memory,
            space=space,
        )

    def form(self, shape: Sequence[int]) -> tuple[Literal["vector", "ring", "field"], int, int]:
        """Layout, number of space axes and number of channels."""
        layout = self.layout or _layout(shape)
        if layout == "vector":
            return layout, 0, math.prod(shape)
        space = {"ring": 1, "field": 2}[layout]
        return layout, space, shape[0] if len(shape) == space + 1 else 1


def _layout(shape: Sequence[int]) -> Literal["vector", "ring", "field"]:
    if math.prod(shape) < 16 or len(shape) > 3:
        return "vector"
    return "ring" if len(shape) == 1 or (len(shape) == 2 and shape[0] < _FEW) else "field"
