"""The route of a linear measurement: exact with the exact denoiser."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...bases import MatrixBasis
from ...denoisers.gaussian import GaussianDenoiser
from ...diffusion.process import Process, ProcessFamily
from ...diffusion.samplers import Sampler
from ...ensemble.statistics import member_variance
from ...measurements.measurement import Measurement
from ..priors.base import Prior
from .base import Inputs, Route, draws, known, of_each, residual, rotated

__all__ = ["Linear"]


class Linear(Route):
    """Draws with the prior's denoiser along the process that ends in z."""

    name: ClassVar[str] = "linear"

    def check(
        self,
        prior: Prior,
        process: ProcessFamily,
        sampler: Sampler,
        measurement: Measurement,
        state_shape: tuple[int, ...],
        scale_shape: tuple[int, ...],
    ) -> None:
        if measurement.operator.structure is None:
            raise ValueError(
                f"{type(measurement.operator).__name__} is not linear (structure None), so the route "
                "'linear' does not suit it: take 'linearized' or 'conditional', or 'auto'."
            )
        process.check(measurement, state_shape, scale_shape)

    def draw(
        self, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        key_prior, key_draws = keys
        process = inputs.process_at()
        members = of_each(process.frame.encode, inputs.members)
        denoiser, memory, info = inputs.prior(key_prior, members, process, memory)
        if isinstance(denoiser, GaussianDenoiser) and denoiser.factored:
            process, denoiser, rounding = moved(inputs, process, denoiser)
            info = info | {"rounding": rounding}
            members = of_each(process.frame.encode, inputs.members)
        info = info | residual(process, denoiser)
        drawn = draws(key_draws, process, denoiser, members, inputs.sampler)
        coordinates, drawn = drawn, of_each(process.frame.decode, drawn)
        if "rounding" in info and isinstance(basis := process.frame.basis, MatrixBasis):
            spread = jnp.sqrt(member_variance(drawn)) / inputs.scale
            info = info | {"rounding": info["rounding"] + _mixing(basis, coordinates, spread)}
        if inputs.prior.rotates and inputs.sampler.moves_members:
            drawn = rotated(key_draws, drawn)
        # a Fourier structure counts as unmeasured where single values are missing: keep the forecast then
        return jnp.where(process.observed.any(), drawn, inputs.members), memory, info


def _mixing(basis: MatrixBasis, coordinates: Float[Array, "N *v"], spread: Array) -> Float[Array, ""]:
    """Of entries of V known to about ε/4, how much of the coordinates' spread goes to each component's.

    An entry that is 0 is right: of a component that is measured alone.
    """
    moved = (basis.matrix != 0).astype(spread.dtype) @ member_variance(coordinates)
    known = spread.reshape(-1)
    mixed = jnp.where(known > 0, jnp.sqrt(moved) / jnp.where(known > 0, known, 1.0), 0.0)
    return 0.25 * jnp.finfo(spread.dtype).eps * jnp.max(mixed)


def moved(
    inputs: Inputs, process: Process, denoiser: GaussianDenoiser
) -> tuple[Process, GaussianDenoiser, Float[Array, ""]]:
    """The same process and denoiser in coordinates whose origin is the analysis mean, found with these.

    And the round-off that is left, in posterior standard deviations (`GaussianDenoiser.rounding`).

    The law is the same. In them what is left of the innovation and of the forecast is as small as the
    analysis' deviations: nothing small is a difference of large numbers.
    """
    origin, denoiser = denoiser.moved(*known(process), inputs.process.keeps_levels)
    process = inputs._replace(centre=process.frame.decode(origin)).process_at()
    return process, denoiser, denoiser.rounding(*known(process))
