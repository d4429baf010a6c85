"""The route of a linear measurement: exact with the exact denoiser."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...bases import MatrixBasis
from ...denoisers.gaussian import GaussianDenoiser
from ...diffusion.process import Process, ProcessFamily
from ...diffusion.samplers import Bridge, Sampler
from ...diffusion.vp_bridge import VP
from ...dynamics.layout import current
from ...ensemble.double import any_of_batch
from ...ensemble.square_root import symmetric_square_root
from ...ensemble.statistics import anomalies, member_variance
from ...filters.base import whitened_innovations
from ...filters.rounding import of_algebra
from ...measurements.measurement import Measurement
from ..priors.base import Prior
from ..priors.gaussian import GaussianPrior
from .base import Inputs, Route, draws, known, of_each, residual, rotated

__all__ = ["Linear"]

_LOST = 1e-3
"""Estimated round-off of a Gram matrix, in posterior standard deviations, above which none is formed."""


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
        if not _is_square_root(inputs):
            return self._by_process(keys, inputs, memory)
        d, s = anomalies(whitened_innovations(inputs.members, inputs.z, inputs.mask, inputs.measurement))
        s = s / jnp.sqrt(jnp.asarray(len(s) - 1, s.dtype))
        lost, _ = of_algebra(d, s, inputs.z, inputs.mask, inputs.measurement)

        def at_once(_: Array) -> tuple[Array, dict[str, Array]]:
            return _by_square_root(keys[1], inputs, s, d), {"rounding": lost}

        def by_process(_: Array) -> tuple[Array, dict[str, Array]]:
            drawn, _, info = self._by_process(keys, inputs, memory)
            return drawn, info

        coarse = jnp.logical_not(jax.lax.stop_gradient(lost) <= _LOST)
        drawn, info = jax.lax.cond(any_of_batch(coarse), by_process, at_once, lost)
        return drawn, memory, info

    def _by_process(
        self, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        key_prior, key_draws = keys
        process = inputs.process_at()
        members = of_each(process.frame.encode, inputs.members)
        denoiser, memory, info = inputs.prior.checked(key_prior, members, process, memory)
        if isinstance(denoiser, GaussianDenoiser) and denoiser.factored:
            process, denoiser, rounding = moved(inputs, process, denoiser)
            info = info | {"rounding": rounding}
            members = of_each(process.frame.encode, inputs.members)
        info = info | residual(process, denoiser)
        drawn = draws(key_draws, process, denoiser, members, inputs.sampler)
        coordinates, drawn = drawn, of_each(process.frame.decode, drawn)
        if "rounding" in info and isinstance(basis := process.frame.basis, MatrixBasis):
            spread = jnp.sqrt(member_variance(drawn)) / inputs.centre_and_scale()[1]
            info = info | {"rounding": info["rounding"] + _mixing(basis, coordinates, spread)}
        if inputs.prior.rotates and inputs.sampler.moves_members:
            drawn = rotated(key_draws, drawn)
        # a Fourier structure counts as unmeasured where single values are missing: keep the forecast then
        return jnp.where(process.observed.any(), drawn, inputs.members), memory, info


def _is_square_root(inputs: Inputs) -> bool:
    """Whether the draws are, but for round-off, the members that the ensemble's square root filter makes.

    Transported members of an untapered Gaussian, by one step of the bridge. Fourier structures have their own
    rule for missing values.
    """
    prior, sampler = inputs.prior, inputs.sampler
    return (
        type(prior) is GaussianPrior
        and prior.transports
        and prior.radius is None
        and type(inputs.process) is VP
        and type(sampler) is Bridge
        and sampler.n_steps == 1
        and sampler.corrected
        and inputs.measurement.operator.structure != "fourier"
    )


def _by_square_root(
    key: PRNGKeyArray, inputs: Inputs, s: Float[Array, "N m"], d: Float[Array, " m"]
) -> Float[Array, "N *x"]:
    """Those members, from the whitened innovation d and its anomalies s over √(N - 1)."""
    layout, members = current(), inputs.members
    mean, x = anomalies(layout.reshape(members, (len(members), members[0].size)))
    weights, moved = symmetric_square_root(-s, d, x)
    weights = weights / jnp.sqrt(jnp.asarray(len(x) - 1, x.dtype))
    drawn = layout.reshape((mean + weights @ x)[None] + moved, members.shape)
    if inputs.prior.rotates:
        drawn = rotated(key, drawn)
    return jnp.where(inputs.mask.any(), drawn, members)


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
    units = process.frame.decode(origin), inputs.centre_and_scale()[1]
    process = inputs._replace(units=units).process_at()
    return process, denoiser, denoiser.rounding(*known(process))
