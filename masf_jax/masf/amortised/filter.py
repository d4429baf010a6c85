"""The score-based filter with a denoiser trained beforehand, for every forecast ensemble."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ...bases import IdentityBasis
from ...denoisers.architecture import Architecture
from ...denoisers.base import Denoiser
from ...denoisers.network import NetworkDenoiser
from ...derivatives import without_derivative
from ...diffusion.process import Frame
from ...diffusion.samplers import bridge
from ...diffusion.schedules import TimeGrid, time_grid
from ...diffusion.vp_bridge import VPBridge
from ...dynamics.base import Dynamics
from ...dynamics.layout import ALL_AT_ONCE, MemberLayout, Placement, current
from ...dynamics.rollout import SAMPLED
from ...ensemble.keys import member_keys
from ...ensemble.normalization import Moments
from ...ensemble.statistics import anomalies, member_mean, member_variance, recentre
from ...filters.around import FilterAround
from ...filters.base import EnsembleState, GaussianState, Info, MemberFilter, State, with_one_noise_law
from ...filters.baselines import ThreeDVar
from ...filters.kalman.letkf import LETKF
from ...measurements.measurement import Measurement
from .coarse import block_mean, interpolated
from .features import SPACE, Scaled, analysis_features, member_features, scaled
from .scale import climate_states

__all__ = ["AmortisedMASF", "Context"]


class _Known(Denoiser):
    """Knows x0."""

    value: Float[Array, "*x"]

    def __call__(self, x: Float[Array, "*x"], angle: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return self.value


class _Calibrated(Denoiser):
    """A network with a variance head, whose spread is multiplied by a factor."""

    network: NetworkDenoiser
    factor: Float[Array, ""]

    def moments(
        self, x: Float[Array, "*x"], angle: Float[Array, "*x"]
    ) -> tuple[Float[Array, "*x"], Float[Array, "*x"]]:
        """Mean and standard deviation of x0 given x."""
        mean, deviation = self.network.moments(x, angle)
        assert deviation is not None
        return mean, self.factor.astype(mean.dtype) * deviation

    def __call__(self, x: Float[Array, "*x"], angle: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return self.network(x, angle)

    def sample(
        self, key: PRNGKeyArray, x: Float[Array, "*x"], angle: Float[Array, "*x"]
    ) -> Float[Array, "*x"]:
        mean, deviation = self.moments(x, angle)
        return mean + deviation * jax.random.normal(key, x.shape, x.dtype)


class Context(NamedTuple):
    """All that the denoiser of one cycle is made of.

    Attributes:
        base: the base filter's state after its analysis.
        analysis: the same ensemble in its units.
        blocks: the means of its members over blocks of cells, in theirs: the units of the network.
        features: what the network sees.
        members: what it sees of each member, if it does.
    """

    base: State
    analysis: Scaled
    blocks: Scaled
    features: Float[Array, "..."]
    members: Float[Array, "..."] | None = None


class Remembered(NamedTuple):
    """What the base filter remembers, and the maps that a network with a memory gave itself."""

    base: Any
    network: Float[Array, "..."]


class AmortisedMASF(FilterAround):
    """Draws analysis members with a denoiser that knows the forecast ensemble and z, and is never retrained.

    A base filter makes its analysis, of mean a and spread b. In its units, w = (x - a)/b, the process
    w_t = cos φ · w + sin φ · η, φ = tπ/2, begins at the state and ends at nothing but the base analysis: the
    measurement enters through the features (see `analysis_features`), so that any operator and any noise
    law will do. The denoiser D(w_t, φ, features) is trained on simulated pairs of truth and forecast
    (`masf_jax.amortised`); its network starts at zero, where D = E[w | w_t] for w ~ N(0, 1).

    The reverse process starts at t = 1, where D is E[w | z] itself, one evaluation for the whole ensemble:
    x0 is D plus the learned spread times the base members' own deviations ("transported") or fresh noise
    ("fresh"). With one step that is the analysis, and with a network of zeros it is the base filter's. More
    steps diffuse x0 and draw it again at smaller φ: they can give it any distribution. So can a network
    that sees the members (`Architecture.member_width`, see `member_features`), and moves each by an amount of
    its own; it is trained through cycles (`train_through_cycles`) alone. So is one with a memory
    (`Architecture.memory`): maps of its own, within ±1, that it makes in each analysis and sees in the next,
    0 before the first; the state's memory is (the base filter's, they).

    Args:
        base: an ensemble filter with equally weighted members; LETKF of radius 7.28 by default. Or
            `ThreeDVar`: one run of the model, its analysis corrected, of covariance S P S with 3D-Var's P and
            learned factors S; the network is told of two members, mean ± deviation/√2.
        denoiser: a trained network; None: a fresh one by `architecture`, from `seed`.
        climate: mean and variance of the model's states, for the features; None: of `climatology` states,
            or fewer where they are large.
        n_steps, grid: number of reverse steps and their spacing.
        members: see above.
        centred: with several steps, shift the members to the mean that the first step knows.
        calibration: factor on the learned spread.
        coarsening: on a ring or a field, the network sees blocks of so many cells along each space axis, and
            what it makes of them, b D and the factor on the spread, is interpolated to the cells: for grids
            finer than that of its training. Takes n_steps=1 and sizes that it divides.
        each_channel: on a ring or a field of several channels, the network is one for states of one channel
            and sees them one by one.
    """

    placement: ClassVar[Placement] = "components"
    base: MemberFilter | ThreeDVar
    denoiser: NetworkDenoiser | None
    climate: Moments | None
    calibration: Float[Array, ""]
    architecture: Architecture = eqx.field(static=True)
    n_steps: int = eqx.field(static=True)
    grid: TimeGrid = eqx.field(static=True)
    members: Literal["transported", "fresh"] = eqx.field(static=True)
    centred: bool = eqx.field(static=True)
    climatology: int = eqx.field(static=True)
    seed: int = eqx.field(static=True)
    coarsening: int = eqx.field(static=True)
    each_channel: bool = eqx.field(static=True)

    def __init__(
        self,
        base: MemberFilter | ThreeDVar | None = None,
        denoiser: NetworkDenoiser | None = None,
        climate: Moments | None = None,
        *,
        n_steps: int = 1,
        grid: TimeGrid = "uniform",
        members: Literal["transported", "fresh"] = "transported",
        centred: bool = True,
        calibration: float | Float[Array, ""] = 1.0,
        architecture: Architecture = Architecture(),
        climatology: int = 1000,
        seed: int = 1,
        coarsening: int = 1,
        each_channel: bool = False,
    ):
        if members not in ("transported", "fresh"):
            raise ValueError(f'members must be "transported" or "fresh"; got {members!r}.')
        if not isinstance(calibration, jax.Array) and not calibration > 0:
            raise ValueError(f"calibration must be positive; got {calibration}.")
        if climatology < 2:
            raise ValueError(f"climatology must be at least 2 model states; got {climatology}.")
        if coarsening < 1 or (coarsening > 1 and n_steps > 1):
            raise ValueError(
                f"coarsening must be at least 1, and 1 with several steps; got {coarsening} for "
                f"n_steps={n_steps}."
            )
        time_grid(n_steps, grid)
        if isinstance(base, ThreeDVar) and (n_steps > 1 or members == "fresh"):
            raise ValueError(
                f"on 3D-Var, which has no members, n_steps must be 1 and members transported; got {n_steps}, "
                f"{members}."
            )
        self.base = LETKF(7.28) if base is None else base
        self.denoiser, self.climate = denoiser, climate
        self.calibration = jnp.asarray(calibration, dtype=float)
        self.architecture, self.n_steps, self.grid = architecture, n_steps, grid
        self.members, self.centred, self.climatology, self.seed = members, centred, climatology, seed
        self.coarsening, self.each_channel = coarsening, each_channel

    @property
    def inner(self) -> MemberFilter:
        return cast(MemberFilter, self.base)  # 3D-Var is asked for what all filters have

    @property
    def has_members(self) -> bool:
        return not isinstance(self.base, ThreeDVar)

    def within(self, state: State) -> State:  # pyright: ignore[reportIncompatibleMethodOverride]
        return dataclasses.replace(state, memory=state.memory.base) if self.remembers else state

    def around(self, state: State, within: State) -> State:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self.remembers:
            return within
        return dataclasses.replace(within, memory=Remembered(within.memory, state.memory.network))

    def take_memory(self, memory: Any, index: Int[Array, " N"]) -> Any:
        if not self.remembers:
            return self.inner.take_memory(memory, index)
        inner, own = memory
        return Remembered(None if inner is None else self.inner.take_memory(inner, index), own)

    @property
    def remembers(self) -> bool:
        """Whether the network gives itself something for the next cycle (`Architecture.memory`)."""
        return self.denoiser is not None and self.denoiser.memory > 0

    def remembering(self, state: State) -> State:
        """A state of the base filter with the network's memory, empty."""
        if not self.remembers:
            return state
        assert self.denoiser is not None
        shape, space = self.seen_shape(state.mean.shape), self.architecture.form(state.mean.shape)[1]
        grid = shape[len(shape) - space :]
        channels = shape[:1] if self.each_channel else ()
        empty = jnp.zeros((*channels, self.denoiser.memory, *grid), state.mean.dtype)
        return dataclasses.replace(state, memory=Remembered(state.memory, empty))

    def completed(self, state: State) -> State:
        if isinstance(state.memory, Remembered) and self.remembers:
            return self.around(state, self.base.completed(self.within(state)))
        return self.remembering(self.base.completed(state))

    def as_used(
        self, state: State, z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement
    ) -> State:
        return self.around(state, self.base.as_used(self.within(state), z, mask, measurement))

    @property
    def uses_noise_of_each_state(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return False  # its features are made with the forecast's mean law

    @property
    def network_is_zero(self) -> bool:
        """Whether all parameters of the network are 0, as training leaves them where the base did better.

        With n_steps=1, transported members and a calibration of 1 the filter is its base then.
        """
        leaves = [] if self.denoiser is None else jax.tree.leaves(self.denoiser.params)
        return bool(leaves) and not any(np.any(np.asarray(leaf)) for leaf in leaves)

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> AmortisedMASF:
        climate, denoiser = self.climate, self.denoiser
        architecture = self.architecture.at(dynamics.coordinates, dynamics.state_shape)
        if denoiser is not None:
            architecture = dataclasses.replace(architecture, layout=denoiser.layout)
        self = dataclasses.replace(self, architecture=architecture)
        shape = self.seen_shape(dynamics.state_shape)
        if climate is not None and climate.mean.shape != dynamics.state_shape:
            raise ValueError(
                f"the filter's climate is of states of shape {climate.mean.shape}, the model's are of "
                f"{dynamics.state_shape}: give load_amortised the model (dynamics=…), or climate=None here, "
                "and it is the model's own."
            )

        if climate is None:
            states = climate_states(dynamics, self.seed, self.climatology)
            climate = without_derivative(SAMPLED, Moments(member_mean(states), member_variance(states)))
        base = self.base.prepare(dynamics, measurement)
        ready = eqx.tree_at(
            lambda f: (f.base, f.climate), self, (base, climate), is_leaf=lambda leaf: leaf is None
        )
        if denoiser is None:
            pair = jax.ShapeDtypeStruct((2, *dynamics.state_shape), climate.mean.dtype)
            z = jax.ShapeDtypeStruct(measurement.output_shape(dynamics.state_shape), climate.mean.dtype)
            mask = jax.ShapeDtypeStruct(z.shape, bool)
            seen = eqx.filter_eval_shape(ready.features, pair, pair, z, mask, measurement)
            kind = dataclasses.replace(self.architecture, preconditioning="bounded", variance_head=True)
            one, features = (shape[1:], seen.shape[1:]) if self.each_channel else (shape, seen.shape)
            features = (features[0] + self.architecture.memory, *features[1:])
            key = jax.random.split(jax.random.key(self.seed))[1]
            members = None
            if self.architecture.member_width:
                each = eqx.filter_eval_shape(ready.members_seen, pair, pair, z, mask, measurement)
                members = jnp.zeros(each.shape[self.each_channel :], each.dtype)
            denoiser = kind.create(key, one, jnp.zeros(features, seen.dtype), members)
        architecture = dataclasses.replace(architecture, layout=denoiser.layout)  # of other sizes, too
        return dataclasses.replace(ready, denoiser=denoiser, architecture=architecture)

    def spread(self, layout: MemberLayout) -> AmortisedMASF:
        return eqx.tree_at(lambda f: f.base, self, self.base.spread(layout))

    def forecast(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        key: PRNGKeyArray,
        state: State,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> State:
        inner = cast(EnsembleState, self.within(state))
        return self.around(state, self.inner.forecast(key, inner, dynamics, step, n_steps, layout))

    def init(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]
    ) -> State:
        state = self.base.init(key, ensemble)
        if (
            isinstance(state, EnsembleState) == self.has_members
            and getattr(state, "log_weights", None) is None
        ):
            return self.remembering(state)
        raise ValueError(
            "the base filter must have equally weighted members, or be a ThreeDVar; "
            f"{type(self.base).__name__} is neither."
        )

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        key: PRNGKeyArray,
        state: State,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[State, Info]:
        key_base, key_sample = jax.random.split(key)
        context, info = self.context(key_base, state, z, mask, measurement)
        after, factor = self.sample(key_sample, context)
        return after, info | {"spread_factor": factor}

    def features(
        self,
        forecast: Float[Array, "N *x"],
        analysis: Float[Array, "N *x"],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> Float[Array, "..."]:
        """What the network sees (see `analysis_features`)."""
        assert self.climate is not None
        measurement = with_one_noise_law(EnsembleState(forecast), measurement)
        layout = self.architecture.form(forecast.shape[1:])[0]
        return analysis_features(
            forecast,
            analysis,
            z,
            mask,
            measurement,
            self.climate,
            layout,
            self.coarsening,
            self.each_channel,
        )

    def members_seen(
        self,
        forecast: Float[Array, "N *x"],
        analysis: Float[Array, "N *x"],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> Float[Array, "..."]:
        """What a network with `Architecture.member_width` sees of each member (see `member_features`)."""
        assert self.climate is not None
        measurement = with_one_noise_law(EnsembleState(forecast), measurement)
        layout = self.architecture.form(forecast.shape[1:])[0]
        options = (layout, self.coarsening, self.each_channel)
        return member_features(forecast, analysis, z, mask, measurement, self.climate, *options)

    def seen_shape(self, state_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a state's block means.

        Raises:
            ValueError: `coarsening` does not divide the sizes, or the state has no space axes.
        """
        c, space = self.coarsening, SPACE[self.architecture.form(state_shape)[0]]
        if c == 1:
            return state_shape
        grid = state_shape[len(state_shape) - space :]
        if space == 0 or any(size % c for size in grid):
            raise ValueError(
                f"coarsening={c} needs states on a ring or a field whose sizes it divides; got {state_shape}."
            )
        return *state_shape[: len(state_shape) - space], *(size // c for size in grid)

    def blocks(self, x: Float[Array, "*batch_and_x"], ndim: int) -> Float[Array, "*batch_and_blocks"]:
        """Means over blocks of states of `ndim` axes, as the network sees them."""
        layout = self.architecture.form(x.shape[x.ndim - ndim :])[0]
        return block_mean(x, self.coarsening, SPACE[layout])

    def context(
        self,
        key: PRNGKeyArray,
        state: State,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[Context, Info]:
        """The base filter's analysis, and what the network is told of it."""
        if self.climate is None:
            raise ValueError(
                "the filter needs the model's climatology: call filter.prepare(dynamics, measurement)."
            )
        measurement = with_one_noise_law(state, measurement)
        base, info = self.inner.update(key, cast(EnsembleState, self.within(state)), z, mask, measurement)
        forecast, members = _members(state), _members(base)
        features = self.features(forecast, members, z, mask, measurement)
        if self.remembers:
            features = jnp.concatenate([features, state.memory.network], int(self.each_channel))
        ndim = members.ndim - 1
        climate = Moments(*(self.blocks(x, ndim) for x in self.climate))
        analysis, blocks = (
            scaled(members, self.climate),
            scaled(self.blocks(members, ndim), climate),
        )
        seen = self.denoiser is not None and self.denoiser.has_members
        each = self.members_seen(forecast, members, z, mask, measurement) if seen else None
        return Context(base, analysis, blocks, features, each), info

    def sample(self, key: PRNGKeyArray, context: Context) -> tuple[State, Float[Array, ""]]:
        """The analysis, and the factor on the base's spread (mean over components)."""
        if self.denoiser is None:
            raise ValueError("the network is not there yet: call filter.prepare(dynamics, measurement).")
        mean, spread, deviations = context.analysis
        denoiser = _Calibrated(
            self.denoiser.with_features(context.features, context.members), self.calibration
        )
        key_first, key_steps = jax.random.split(key)
        if self.members == "fresh":
            deviations = jax.random.normal(key_first, deviations.shape, deviations.dtype)
        start = VPBridge(
            frame=Frame(mean, spread, IdentityBasis()),
            theta=jnp.full_like(mean, 0.5 * math.pi),
            measured=jnp.zeros_like(mean),
            observed=jnp.zeros(mean.shape, bool),
        )
        blocks, c = context.blocks, self.coarsening
        at_start = jnp.zeros_like(blocks.mean), jnp.full_like(blocks.mean, 0.5 * math.pi)
        centre, factor = denoiser.moments(*at_start)
        space = SPACE[self.architecture.form(mean.shape)[0]]
        if c > 1:
            centre = interpolated(blocks.spread * centre, c, space) / spread
            factor = interpolated(factor, c, space)
        drawn = recentre(centre, factor[None] * deviations)
        if self.denoiser.has_members:
            moves = denoiser.network.moves(*at_start)
            if c > 1:
                moves = interpolated(blocks.spread[None] * moves, c, space) / spread[None]
            drawn = drawn + moves
            centre, factor = member_mean(drawn), jnp.sqrt(member_variance(drawn))
        if self.n_steps > 1:
            times = time_grid(self.n_steps, self.grid)
            keys = member_keys(key_steps, drawn.shape[0])

            def one(key: PRNGKeyArray, w0: Array) -> Array:
                return bridge(key, start, denoiser, times, first=_Known(w0))

            drawn = current().spread(current().each(one, keys, drawn))
            if self.centred:
                drawn = recentre(centre, anomalies(drawn)[1])
        after = _with_members(context.base, jax.vmap(start.frame.decode)(drawn))
        if self.remembers:
            kept = denoiser.network.remembered(*at_start)
            after = dataclasses.replace(after, memory=Remembered(after.memory, kept))
        return after, jnp.mean(factor)


def _members(state: State) -> Float[Array, "N *x"]:
    """The members; of a Gaussian state two with its mean and variances."""
    if isinstance(state, EnsembleState):
        return state.ensemble
    half = jnp.sqrt(0.5 * state.variance)
    return jnp.stack([state.mean - half, state.mean + half])


def _with_members(state: State, members: Float[Array, "N *x"]) -> State:
    """The inverse: a Gaussian state keeps its correlations."""
    if isinstance(state, EnsembleState):
        return EnsembleState(members, None, state.memory)
    variance = state.variance
    factor = jnp.sqrt(member_variance(members) / jnp.where(variance > 0, variance, 1)).ravel()
    covariance = factor[:, None] * state.covariance * factor[None]
    return GaussianState(member_mean(members), covariance, state.memory)
