"""The measurement-aware score-based filter."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..denoisers.base import Denoiser
from ..diffusion.process import Process
from ..diffusion.samplers import bridge, bridge_start, guided, paper_guidance_scale, paper_score_scale
from ..diffusion.schedules import TimeGrid, time_grid
from ..diffusion.whitened import check_structure
from ..dynamics.base import Dynamics
from ..ensemble.inflation import Inflation
from ..ensemble.normalization import Normalization
from ..ensemble.statistics import anomalies, recentre
from ..measurements.measurement import Measurement
from .base import EnsembleState, Info, MemberFilter
from .climate import Climate, ProcessKind, climate, make_process
from .denoiser_fit import DenoiserFit, GaussianFit

__all__ = ["MASF"]


class MASF(MemberFilter):
    """Draws each analysis member from p(x | z) by a diffusion between the forecast and the measurement.

    Each cycle: normalise the forecast ensemble; build the process that ends in the measured values; get a
    denoiser of the forecast (`denoiser`); run the reverse process from the measurement, once per member.
    With the exact denoiser the analysis is exact (sampler "bridge").

    Sources: Yoon, Chang, Kim & Kim, arXiv 2604.02889 (process "measurement_aware", sampler "guided"); for the
    bridge and the process "vp" see docs/masf.md.

    Args:
        denoiser: how the denoiser comes from the forecast ensemble; `GaussianFit()` by default.
        inflation: see `Inflation`.
        normalization: see `Normalization`.
        process: "vp" (any linear measurement), or the paper's "measurement_aware".
        sampler: "bridge", or the paper's "guided" (counts the measurement twice).
        n_steps, grid, first: number of reverse steps, their spacing, and the first diffusion time
            (the bridge starts at 1; the paper's sampler at .992, on the "quadratic" grid, where it needs at
            least 64 steps; see `guided`).
        corrected: draw x0 in each step from the denoiser's law instead of taking its mean (bridge only).
        centred: shift the analysis members so that their mean is the denoiser's at diffusion time 1 (bridge
            only): E[x | z] itself, without the sampling error of N draws. Of a denoiser that does not ignore
            pure noise (a network) its mean over the members' own noise where nothing is measured.
        paper_scales: the paper's c_s and c_g in the guided sampler; else both are 1.
        climatology, seed: number and random seed of the model states behind a fixed normalisation without
            moments, and behind the pretraining of a network: the same states.
    """

    denoiser: DenoiserFit
    inflation: Inflation
    normalization: Normalization
    process: ProcessKind = eqx.field(static=True)
    sampler: Literal["bridge", "guided"] = eqx.field(static=True)
    n_steps: int = eqx.field(static=True)
    grid: TimeGrid = eqx.field(static=True)
    first: float = eqx.field(static=True)
    corrected: bool = eqx.field(static=True)
    centred: bool = eqx.field(static=True)
    paper_scales: bool = eqx.field(static=True)
    climatology: int = eqx.field(static=True)
    seed: int = eqx.field(static=True)

    def __init__(
        self,
        denoiser: DenoiserFit | None = None,
        inflation: Inflation | None = None,
        normalization: Normalization | None = None,
        *,
        process: ProcessKind = "vp",
        sampler: Literal["bridge", "guided"] = "bridge",
        n_steps: int = 1,
        grid: TimeGrid = "uniform",
        first: float | None = None,
        corrected: bool = True,
        centred: bool = True,
        paper_scales: bool = True,
        climatology: int = 1000,
        seed: int = 1,
    ):
        for name, value, known in (
            ("process", process, ("vp", "measurement_aware")),
            ("sampler", sampler, ("bridge", "guided")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
        first = (1.0 if sampler == "bridge" else 0.992) if first is None else first
        if sampler == "bridge" and first != 1:
            raise ValueError(f"the bridge starts at the measurement, diffusion time 1; got first={first}.")
        if sampler == "guided" and not first < 1:
            raise ValueError(f"the guided sampler has no score at diffusion time 1: first < 1; got {first}.")
        if sampler == "guided" and n_steps < 3:
            raise ValueError(
                f"the guided sampler diverges in 1 or 2 steps, whatever the noise; got n_steps={n_steps}. "
                "Give it 64 or more (the paper: 150), or use the bridge."
            )
        if climatology < 2:
            raise ValueError(f"climatology must be at least 2 model states; got {climatology}.")
        time_grid(n_steps, grid, first)
        self.denoiser = GaussianFit() if denoiser is None else denoiser
        self.inflation = Inflation() if inflation is None else inflation
        self.normalization = Normalization() if normalization is None else normalization
        self.process, self.sampler, self.n_steps, self.grid = process, sampler, n_steps, grid
        self.first, self.corrected, self.centred = first, corrected, centred
        self.paper_scales = paper_scales
        self.climatology, self.seed = climatology, seed

    def climate(self, dynamics: Dynamics, measurement: Measurement) -> Climate:
        """The model states behind a fixed normalisation and a pretrained network: the same at every call."""
        key, normalization = jax.random.key(self.seed), self._normalization(measurement)
        return climate(dynamics, measurement, normalization, self.process, key, self.climatology)

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> MASF:
        """See `Filter.prepare`; `climate()` stands in for `self.climate(dynamics, measurement)`."""
        shape = dynamics.state_shape
        normalization = self._normalization(measurement)
        scale_shape = (1,) * len(shape) if normalization.uniform else shape
        check_structure(measurement, scale_shape, math.prod(shape))
        if self.process == "measurement_aware":  # concrete here: its validity can be looked at
            z = jnp.zeros(measurement.output_shape(shape))
            make_process(
                self.process, measurement, z, jnp.ones(z.shape, bool), jnp.zeros(shape), jnp.ones(scale_shape)
            )
        if self.denoiser.climatological and normalization.kind != "fixed":
            raise ValueError(
                "a denoiser trained on the model's climatology alone knows states in its units: it needs the "
                f'normalisation "fixed"; got {normalization.kind!r}. Or train it on the forecasts too.'
            )
        states = functools.cache(climate or (lambda: self.climate(dynamics, measurement)))
        denoiser = self.denoiser.prepare(dynamics, measurement, states)
        if normalization.kind == "fixed" and normalization.moments is None:
            normalization = dataclasses.replace(normalization, moments=states().moments)
        return eqx.tree_at(lambda f: (f.denoiser, f.normalization), self, (denoiser, normalization))

    def _normalization(self, measurement: Measurement) -> Normalization:
        if measurement.operator.structure != "fourier":
            return self.normalization
        return dataclasses.replace(self.normalization, uniform=True)

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> EnsembleState:
        memory = (
            self.inflation.init(ensemble.dtype),
            self.normalization.init(ensemble),
            self.denoiser.init(),
        )
        return EnsembleState(ensemble, None, memory)

    def update(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[EnsembleState, Info]:
        key_fit, key_sample, key_inflate = jax.random.split(key, 3)
        inflation_memory, normalization_memory, denoiser_memory = state.memory
        forecast = state.ensemble
        d = jax.vmap(measurement.whitened_innovation, (None, 0, None))(z, forecast, mask)
        inflated, inflation_memory = self.inflation.before(
            forecast, inflation_memory, d, mask.sum().astype(d.dtype)
        )
        centre, scale, normalization_memory = self.normalization(inflated, normalization_memory)
        process = make_process(self.process, measurement, z, mask, centre, scale)
        members = jax.vmap(process.frame.encode)(inflated)
        denoiser, denoiser_memory, info = self.denoiser(key_fit, members, process, denoiser_memory)
        drawn = self.sample(key_sample, process, denoiser, members)
        # a Fourier structure counts as unmeasured where single values are missing: keep the forecast then
        drawn = jnp.where(process.observed.any(), jax.vmap(process.frame.decode)(drawn), inflated)
        analysis = self.inflation.after(key_inflate, forecast, drawn)
        if inflation_memory is not None:
            info = info | {"inflation": jnp.sqrt(inflation_memory.factor)}
        memory = (inflation_memory, normalization_memory, denoiser_memory)
        return EnsembleState(analysis, state.log_weights, memory), info

    def sample(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, members: Float[Array, "N *v"]
    ) -> Float[Array, "N *v"]:
        """One draw of p(x | z) for each forecast member, all in the process's coordinates."""
        times = time_grid(self.n_steps, self.grid, self.first)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(members.shape[0], dtype=jnp.uint32))

        def one(key: PRNGKeyArray, member: Array) -> Array:
            if self.sampler == "bridge":
                own = denoiser.for_member(member)
                first = None if own is denoiser else own
                return bridge(key, process, denoiser, times, self.corrected, first)
            if self.paper_scales:
                return guided(key, process, denoiser, times, member, paper_score_scale, paper_guidance_scale)
            return guided(key, process, denoiser, times, member, jnp.ones_like, jnp.ones_like)

        drawn = jax.vmap(one)(keys, members)
        if not self.centred or self.sampler != "bridge":
            return drawn
        one_time = jnp.ones((), members.dtype)

        def expected(start: Array) -> Array:
            return denoiser(process.rescaled(start, one_time), process.angle(one_time))

        if denoiser.ignores_noise:
            mean = expected(process.endpoint(jax.random.fold_in(key, members.shape[0])))
        else:  # one draw of what is not measured would be an error that all members share
            mean = jax.vmap(lambda key: expected(bridge_start(key, process)[0]))(keys).mean(0)
        return recentre(mean, anomalies(drawn)[1])
