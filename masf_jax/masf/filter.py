"""The measurement-aware score-based filter."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..bases import IdentityBasis
from ..denoisers.base import Denoiser
from ..diffusion.process import Process
from ..diffusion.samplers import bridge, bridge_start, guided, paper_guidance_scale, paper_score_scale
from ..diffusion.schedules import TimeGrid, time_grid
from ..diffusion.whitened import check_structure
from ..dynamics.base import Dynamics
from ..ensemble.inflation import Inflation
from ..ensemble.normalization import Normalization
from ..ensemble.statistics import anomalies, recentre
from ..ensemble.transforms import mean_preserving_rotation
from ..filters.base import EnsembleState, Info, MemberFilter
from ..measurements.measurement import Measurement
from .climatology import Climate, ProcessKind, climate, make_process
from .priors.base import DenoiserFit, DrawingFit, Fit, GaussianFit, Sampling, member_keys
from .routes.choice import Route, check_route, check_settings, chosen_route, drawn_by_fit
from .routes.linearized import Linearization, Problem

__all__ = ["MASF"]


class MASF(MemberFilter):
    """Draws each analysis member from p(x | z) by a diffusion between the forecast and the measurement.

    Each cycle: normalise the forecast ensemble; build the process that ends in the measured values; get a
    denoiser of the forecast (`denoiser`); run the reverse process from the measurement, once per member.
    With the exact denoiser the analysis is exact (sampler "bridge").

    Sources: Yoon, Chang, Kim & Kim, arXiv 2604.02889 (process "measurement_aware", sampler "guided"); for the
    bridge and the process "vp" see docs/masf.md.

    Args:
        denoiser: what is made of the forecast ensemble; `GaussianFit(members="transported")` by default.
        inflation: see `Inflation`.
        normalization: see `Normalization`.
        process: "vp" (any linear measurement), or the paper's "measurement_aware".
        sampler: "bridge", or the paper's "guided" (counts the measurement twice).
        n_steps, grid, first: number of reverse steps, their spacing, and the first diffusion time
            (the bridge starts at 1; the paper's sampler at .992, on the "quadratic" grid, where it needs at
            least 64 steps; see `guided`).
        corrected: draw x0 in each step from the denoiser's law instead of taking its mean (bridge only).
        route: "linear" (as above): exact with the exact denoiser, but for noise that depends on H(x);
            "linearized": the same at tangents of H (`linearization`; "vp" and bridge only): near for a mild H
            of one mode, with `proposals` right for most of one mode; wrong for several modes (x², |x|);
            "conditional": a denoiser that knows z, for any H and noise (`ConditionalFit`): right for all of
            them, few components;
            "dual_head": the paper's for a nonlinear H (`DualHeadFit`): biased for all; "auto" goes by the
            operator's structure and the kind of `denoiser` (`route_of`). Distances: docs/masf.md.
        centred: shift the analysis members so that their mean is the denoiser's at diffusion time 1 (bridge
            only): E[x | z] itself, without the sampling error of N draws. Of a denoiser that does not ignore
            pure noise (a network) its mean over the members' own noise where nothing is measured.
        rotation: a random mean-preserving rotation of transported members (`GaussianFit`) in each analysis:
            without it they keep their forecast's shape, in which outliers grow over the cycles.
        paper_scales: the paper's c_s and c_g in the guided sampler; else both are 1.
        climatology, seed: number and random seed of the model states behind a fixed normalisation without
            moments, and behind the pretraining of a network: the same states.
    """

    denoiser: Fit
    inflation: Inflation
    normalization: Normalization
    linearization: Linearization
    route: Route = eqx.field(static=True)
    process: ProcessKind = eqx.field(static=True)
    sampler: Literal["bridge", "guided"] = eqx.field(static=True)
    n_steps: int = eqx.field(static=True)
    grid: TimeGrid = eqx.field(static=True)
    first: float = eqx.field(static=True)
    corrected: bool = eqx.field(static=True)
    centred: bool = eqx.field(static=True)
    rotation: bool = eqx.field(static=True)
    paper_scales: bool = eqx.field(static=True)
    climatology: int = eqx.field(static=True)
    seed: int = eqx.field(static=True)

    def __init__(
        self,
        denoiser: Fit | None = None,
        inflation: Inflation | None = None,
        normalization: Normalization | None = None,
        linearization: Linearization | None = None,
        *,
        route: Route = "auto",
        process: ProcessKind = "vp",
        sampler: Literal["bridge", "guided"] = "bridge",
        n_steps: int = 1,
        grid: TimeGrid = "uniform",
        first: float | None = None,
        corrected: bool = True,
        centred: bool = True,
        rotation: bool = False,
        paper_scales: bool = True,
        climatology: int = 1000,
        seed: int = 1,
    ):
        first = (1.0 if sampler == "bridge" else 0.992) if first is None else first
        check_settings(route, process, sampler, n_steps, first)
        if climatology < 2:
            raise ValueError(f"climatology must be at least 2 model states; got {climatology}.")
        time_grid(n_steps, grid, first)
        self.denoiser = GaussianFit(members="transported") if denoiser is None else denoiser
        self.inflation = Inflation() if inflation is None else inflation
        self.normalization = Normalization() if normalization is None else normalization
        self.linearization = Linearization() if linearization is None else linearization
        self.route, self.process, self.sampler = route, process, sampler
        self.n_steps, self.grid = n_steps, grid
        self.first, self.corrected, self.centred = first, corrected, centred
        self.paper_scales, self.rotation = paper_scales, rotation
        self.climatology, self.seed = climatology, seed

    @property
    def uses_noise_of_each_state(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of a fit that knows z: it may have any law of the noise."""
        return "conditional" in self.denoiser.routes

    def route_of(self, measurement: Measurement) -> Route:
        """The route taken for this measurement."""
        return chosen_route(self.route, self.denoiser, measurement)

    def climate(self, dynamics: Dynamics, measurement: Measurement) -> Climate:
        """The model states behind a fixed normalisation and a pretrained network: the same at every call."""
        key, normalization = jax.random.key(self.seed), self._normalization(measurement)
        kind = None if drawn_by_fit(self.route_of(measurement)) else self.process
        return climate(dynamics, measurement, normalization, kind, key, self.climatology)

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> MASF:
        """See `Filter.prepare`; `climate()` stands in for `self.climate(dynamics, measurement)`."""
        shape = dynamics.state_shape
        normalization = self._normalization(measurement)
        scale_shape = (1,) * len(shape) if normalization.uniform else shape
        check_route(self, measurement, shape)
        own = drawn_by_fit(self.route_of(measurement))
        if not own:
            check_structure(measurement, scale_shape, shape)
        if self.process == "measurement_aware" and not own:  # concrete here: its validity can be looked at
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
        state_units = (centre, scale)
        if isinstance(self.denoiser, DrawingFit) and drawn_by_fit(self.route_of(measurement)):
            drawn, denoiser_memory, info = self.denoiser.draw(
                key_sample, inflated, measurement, z, mask, state_units, self._sampling, denoiser_memory
            )
        else:
            drawn, denoiser_memory, info = self._drawn(
                (key_fit, key_sample), inflated, measurement, z, mask, state_units, denoiser_memory
            )
        analysis = self.inflation.after(key_inflate, forecast, drawn)
        if inflation_memory is not None:
            info = info | {"inflation": jnp.sqrt(inflation_memory.factor)}
        memory = (inflation_memory, normalization_memory, denoiser_memory)
        return EnsembleState(analysis, state.log_weights, memory), info

    @property
    def _sampling(self) -> Sampling:
        return Sampling(self.n_steps, self.grid, self.first, self.corrected, self.paper_scales)

    def _drawn(
        self,
        keys: tuple[PRNGKeyArray, PRNGKeyArray],
        inflated: Float[Array, "N *x"],
        measurement: Measurement,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        units: tuple[Float[Array, "*x"], Float[Array, "..."]],
        memory: Any,
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        """The analysis members of the routes "linear" and "linearized"."""
        (key_fit, key_sample), (centre, scale) = keys, units
        assert isinstance(self.denoiser, DenoiserFit)
        linearized = self.route_of(measurement) == "linearized"
        own = linearized and self.linearization.at == "member"
        fit = self.denoiser.of_each_member if own else self.denoiser
        transported = fit.transports and not (linearized and self.linearization.proposals)
        transported &= self.sampler == "bridge"
        process = make_process(self.process, measurement, z, mask, centre, scale)
        members = jax.vmap(process.frame.encode)(inflated)
        denoiser, new_memory, info = fit(key_fit, members, process, memory)
        if linearized:

            def process_at(at: Array, tempering: Array) -> Process:
                return make_process(self.process, measurement, z, mask, centre, scale, at, tempering)

            def denoiser_of(other: Process) -> Denoiser:
                if isinstance(other.frame.basis, IdentityBasis):
                    return denoiser
                coordinates = jax.vmap(other.frame.encode)(inflated)
                return fit(key_fit, coordinates, other, memory)[0]

            problem = Problem(process_at, denoiser_of, self._draw, self._mean, inflated, scale)
            drawn, found = self.linearization(key_sample, problem, measurement, z, mask, self.centred)
            return self._turned(key_sample, drawn, transported), new_memory, info | found
        drawn = jax.vmap(process.frame.decode)(self.sample(key_sample, process, denoiser, members))
        drawn = self._turned(key_sample, drawn, transported)
        # a Fourier structure counts as unmeasured where single values are missing: keep the forecast then
        return jnp.where(process.observed.any(), drawn, inflated), new_memory, info

    def _turned(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], transported: bool
    ) -> Float[Array, "N *x"]:
        """Transported members after a random mean-preserving rotation, where there is to be one."""
        if not self.rotation or not transported:
            return members
        mean, deviations = anomalies(members)
        n = len(members)
        turn = mean_preserving_rotation(jax.random.fold_in(key, n), n, members.dtype)
        return recentre(mean, jnp.tensordot(turn, deviations, axes=1))

    def sample(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, members: Float[Array, "N *v"]
    ) -> Float[Array, "N *v"]:
        """One draw of p(x | z) for each forecast member, all in the process's coordinates."""
        keys = member_keys(key, members.shape[0])
        drawn = jax.vmap(self._one, (0, None, None, 0))(keys, process, denoiser, members)
        if not self.centred or self.sampler != "bridge":
            return drawn
        return recentre(self._expected(key, process, denoiser, members.shape[0]), anomalies(drawn)[1])

    def _one(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, member: Float[Array, "*v"] | None
    ) -> Float[Array, "*v"]:
        """One draw, from this forecast member where the denoiser couples them."""
        times = self._sampling.times()
        if self.sampler == "bridge":
            own = denoiser if member is None else denoiser.for_member(member)
            return bridge(key, process, denoiser, times, self.corrected, None if own is denoiser else own)
        assert member is not None
        if self.paper_scales:
            return guided(key, process, denoiser, times, member, paper_score_scale, paper_guidance_scale)
        return guided(key, process, denoiser, times, member, jnp.ones_like, jnp.ones_like)

    @staticmethod
    def _expected(
        key: PRNGKeyArray, process: Process, denoiser: Denoiser, n_members: int
    ) -> Float[Array, "*v"]:
        """E[v_0 | z]: the denoiser at diffusion time 1."""
        one_time = jnp.ones((), process.measured.dtype)

        def expected(start: Array) -> Array:
            return denoiser(process.rescaled(start, one_time), process.angle(one_time))

        if denoiser.ignores_noise:
            return expected(process.endpoint(jax.random.fold_in(key, n_members)))
        # one draw of what is not measured would be an error that all members share
        keys = member_keys(key, n_members)
        return jax.vmap(lambda key: expected(bridge_start(key, process)[0]))(keys).mean(0)

    def _draw(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, member: Float[Array, "*x"] | None
    ) -> Float[Array, "*x"]:
        """One draw in the state's units."""
        own = None if member is None else process.frame.encode(member)
        return process.frame.decode(self._one(key, process, denoiser, own))

    def _mean(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, n_members: int
    ) -> Float[Array, "*x"]:
        """E[x | z] in the state's units."""
        return process.frame.decode(self._expected(key, process, denoiser, n_members))
