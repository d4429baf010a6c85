"""The measurement-aware score-based filter."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..diffusion.process import ProcessFamily
from ..diffusion.samplers import Sampler
from ..diffusion.vp_bridge import VP
from ..dynamics.base import Dynamics
from ..dynamics.layout import MemberLayout, Placement
from ..ensemble.inflation import Inflation
from ..ensemble.normalization import Normalization
from ..filters.base import InflatedFilter, Info
from ..measurements.measurement import Measurement
from .analysis import masf_analysis
from .climate import Climate, climate
from .priors.base import Prior
from .priors.gaussian import GaussianPrior
from .routes.automatic import Automatic
from .routes.base import Route
from .routes.conditional import Conditional

__all__ = ["MASF"]


class MASF(InflatedFilter):
    """Draws each analysis member from p(x | z) by a diffusion between the forecast and the measurement.

    Each cycle: inflate and normalise the forecast ensemble, draw the analysis (`masf_analysis`), relax. With
    the exact denoiser the analysis is exact (`Bridge`). A user's own prior, process, sampler or route is a
    class of one method (`Prior`, `ProcessFamily`, `Sampler`, `Route`).

    Sources: Yoon, Chang, Kim & Kim, arXiv 2604.02889 (`MeasurementAware`, `Guided`); for the bridge and `VP`
    see docs/masf.md.

    Args:
        prior: what is made of the forecast ensemble: `GaussianPrior()` by default, `KernelPrior`,
            `NetworkPrior`, `HybridPrior`.
        process: `VP()` (any linear measurement) by default, or the paper's `MeasurementAware`.
        sampler: `Bridge()` by default, or the paper's `Guided` (counts the measurement twice).
        route: `Automatic()` by default: by the operator's structure.
            `Linear`: exact with the exact denoiser, but for noise that depends on H(x);
            `Linearized`: the same at tangents of H: near for a mild H of one mode, with `proposals` right
            for most of one mode; wrong for several modes (x², |x|);
            `ConditionalKernel`, `ConditionalNetwork`: what knows z, for any H and noise, without a prior:
            right for all of them, few components;
            `DualHead`: the paper's for a nonlinear H: biased for all. Distances: docs/masf.md.
        inflation: see `Inflation`.
        normalization: see `Normalization`; by default of each forecast, and fixed for a pretrained network.
        climatology, seed: number and random seed of the model states behind a fixed normalisation without
            moments, and behind the pretraining of a network: the same states.

    Raises:
        TypeError: a part of another kind. ValueError: parts that do not go together.
    """

    prior: Prior
    process: ProcessFamily
    sampler: Sampler
    route: Route
    inflation: Inflation
    normalization: Normalization
    climatology: int = eqx.field(static=True)
    seed: int = eqx.field(static=True)

    def __init__(
        self,
        prior: Prior | None = None,
        process: ProcessFamily | None = None,
        sampler: Sampler | None = None,
        route: Route | None = None,
        inflation: Inflation | None = None,
        normalization: Normalization | None = None,
        climatology: int = 1000,
        seed: int = 1,
        **former: Any,
    ):
        _refuse_former(former)
        if climatology < 2:
            raise ValueError(f"climatology must be at least 2 model states; got {climatology}.")
        if prior is not None and isinstance(route, Conditional):
            raise ValueError(f"{type(route).__name__} knows the measured values itself: it takes no prior.")
        self.prior = _of_kind("prior", prior, Prior, GaussianPrior)
        self.process = _of_kind("process", process, ProcessFamily, VP)
        self.route = _of_kind("route", route, Route, Automatic)
        self.sampler = _of_kind("sampler", sampler, Sampler, self.route.sampler)
        self.inflation = Inflation() if inflation is None else inflation
        units = "fixed" if self.prior.climatological else "cycle"
        self.normalization = _of_kind(
            "normalization", normalization, Normalization, lambda: Normalization(units)
        )
        self.climatology, self.seed = climatology, seed

    @property
    def uses_noise_of_each_state(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of a route that knows z: it may have any law of the noise."""
        return self.route.uses_noise_of_each_state

    @property
    def placement(self) -> Placement:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.prior.placement

    @property
    def localization_radius(self) -> Float[Array, ""] | None:
        return getattr(self.prior, "radius", None)

    def route_of(self, measurement: Measurement) -> str:
        """The name of the route taken for this measurement."""
        return self.route.of(measurement).name

    def climate(self, dynamics: Dynamics, measurement: Measurement) -> Climate:
        """The model states behind a fixed normalisation and a pretrained network: the same at every call."""
        key, normalization = jax.random.key(self.seed), self._normalization(measurement)
        family = None if self.route.of(measurement).draws_itself else self.process
        return climate(dynamics, measurement, normalization, family, key, self.climatology)

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> MASF:
        """See `Filter.prepare`; `climate()` stands in for `self.climate(dynamics, measurement)`."""
        shape = dynamics.state_shape
        normalization = self._normalization(measurement)
        scale_shape = (1,) * len(shape) if normalization.uniform else shape
        route = self.route.of(measurement)
        route.check(self.prior, self.process, self.sampler, measurement, shape, scale_shape)
        if self.prior.climatological and normalization.kind != "fixed":
            raise ValueError(
                "a denoiser trained on the model's climatology alone knows states in its units: it needs the "
                f'normalisation "fixed"; got {normalization.kind!r}. Or train it on the forecasts too.'
            )
        states = functools.cache(climate or (lambda: self.climate(dynamics, measurement)))
        route, prior = self.route.prepare(self.prior, dynamics, measurement, states)
        if normalization.kind == "fixed" and normalization.moments is None:
            normalization = dataclasses.replace(normalization, moments=states().moments)
        return eqx.tree_at(lambda f: (f.prior, f.route, f.normalization), self, (prior, route, normalization))

    def spread(self, layout: MemberLayout) -> MASF:
        return eqx.tree_at(lambda f: f.prior, self, self.prior.spread(layout))

    def _normalization(self, measurement: Measurement) -> Normalization:
        if measurement.operator.structure != "fourier":
            return self.normalization
        return dataclasses.replace(self.normalization, uniform=True)

    def remember(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> Any:
        return self.normalization.init(ensemble), self.route.init(self.prior)

    def keys(self, key: PRNGKeyArray) -> tuple[Any, PRNGKeyArray]:
        key_prior, key_draws, key_inflate = jax.random.split(key, 3)
        return (key_prior, key_draws), key_inflate

    def analyse(
        self,
        key: tuple[PRNGKeyArray, PRNGKeyArray],
        members: Float[Array, "N *x"],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
        memory: Any,
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        units_memory, memory = memory
        units = None
        if not self.normalization.plain:
            centre, scale, units_memory = self.normalization(members, units_memory)
            units = centre, scale
        drawn, memory, info = masf_analysis(
            key,
            members,
            measurement,
            z,
            mask,
            prior=self.prior,
            process=self.process,
            sampler=self.sampler,
            route=self.route,
            units=units,
            memory=memory,
        )
        return drawn, (units_memory, memory), info


def _of_kind(name: str, given: Any, kind: type, default: Callable[[], Any]) -> Any:
    if given is None:
        return default()
    if isinstance(given, kind):
        return given
    shown = (
        f"the class {given.__name__}; make one, {given.__name__}()"
        if isinstance(given, type)
        else repr(given)
    )
    raise TypeError(f"{name} must be a {kind.__name__} (see masf_jax.masf); got {shown}.")


_FORMER = {
    "denoiser": "prior=GaussianPrior(…) or another; what knows z is a route, route=ConditionalKernel()",
    "linearization": "route=Automatic(Linearized(…)), or route=Linearized(…)",
    "n_steps": "sampler=Bridge(n_steps=…)",
    "grid": "sampler=Bridge(grid=…)",
    "first": "sampler=Guided(first=…)",
    "corrected": "sampler=Bridge(corrected=…)",
    "centred": "sampler=Bridge(centred=…)",
    "paper_scales": "sampler=Guided(paper_scales=…)",
    "rotation": "prior=GaussianPrior(rotation=…)",
}


def _refuse_former(former: dict[str, Any]) -> None:
    for name in former:
        if name in _FORMER:
            raise TypeError(f"MASF has no argument {name} any more: give {_FORMER[name]}.")
        if name in inspect.signature(GaussianPrior).parameters:
            raise TypeError(
                f"MASF has no argument {name}, its prior has: "
                f"MASF(masf_jax.masf.GaussianPrior({name}={former[name]}))."
            )
        raise TypeError(f"MASF has no argument {name}.")
