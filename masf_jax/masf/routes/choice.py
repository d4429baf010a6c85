"""Which way a score-based filter takes from the forecast to the analysis, and what it cannot take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ...measurements.measurement import Measurement
from ..priors.base import DenoiserFit, Fit

if TYPE_CHECKING:
    from ..filter import MASF

__all__ = ["Route", "check_route", "check_settings", "chosen_route", "drawn_by_fit"]

Route: TypeAlias = Literal["auto", "linear", "linearized", "conditional", "dual_head"]


def chosen_route(route: Route, fit: Fit, measurement: Measurement) -> Route:
    """The route that `route` means for this measurement: "auto" goes by the operator's structure.

    A fit that knows z takes "conditional"; else a linear H "linear", another "linearized", or "dual_head"
    with the paper's network.
    """
    if route != "auto":
        return route
    if "conditional" in fit.routes:
        return "conditional"
    if measurement.operator.structure is not None:
        return "linear"
    return "dual_head" if "dual_head" in fit.routes else "linearized"


def drawn_by_fit(route: Route) -> bool:
    """Whether the fit draws the analysis itself, without the filter's process and sampler."""
    return route in ("conditional", "dual_head")


def check_settings(route: Route, process: str, sampler: str, n_steps: int, first: float) -> None:
    """Raises ValueError for a choice that does not exist, or a sampler that could not run so."""
    for name, value, known in (
        ("route", route, get_args(Route)),
        ("process", process, ("vp", "measurement_aware")),
        ("sampler", sampler, ("bridge", "guided")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
    if sampler == "bridge" and first != 1:
        raise ValueError(f"the bridge starts at the measurement, diffusion time 1; got first={first}.")
    if sampler == "guided" and not first < 1:
        raise ValueError(f"the guided sampler has no score at diffusion time 1: first < 1; got {first}.")
    if sampler == "guided" and n_steps < 3:
        raise ValueError(
            f"the guided sampler diverges in 1 or 2 steps, whatever the noise; got n_steps={n_steps}. "
            "Give it 64 or more (the paper: 150), or use the bridge."
        )


def check_route(filter: MASF, measurement: Measurement, state_shape: tuple[int, ...]) -> None:
    """Raises ValueError where the filter's route does not suit its fit, or the measurement."""
    route, fit = chosen_route(filter.route, filter.denoiser, measurement), filter.denoiser
    name, fitted = type(measurement.operator).__name__, type(fit).__name__
    if route not in fit.routes:
        advice = {
            "conditional": "it takes what knows the measured values: ConditionalKernel or ConditionalNetwork",
            "dual_head": "it takes the paper's network, DualHeadFit",
        }.get(route, "it takes a denoiser of the forecast, such as GaussianFit")
        raise ValueError(f"{fitted} cannot take the route {route!r}: {advice}.")
    if route == "linear" and measurement.operator.structure is None:
        raise ValueError(
            f"{name} is not linear (structure None), so the route 'linear' does not suit it: take "
            "'linearized' or 'conditional', or 'auto'."
        )
    if route == "dual_head" and (filter.process, filter.sampler) != ("measurement_aware", "guided"):
        raise ValueError(
            "the route 'dual_head' is the paper's: it needs the process 'measurement_aware' and the sampler "
            f"'guided'; got {filter.process!r} and {filter.sampler!r}."
        )
    if route == "conditional" and filter.sampler != "bridge":
        raise ValueError(f"the route 'conditional' has no guided sampler: bridge; got {filter.sampler!r}.")
    if route == "linearized":
        _check_linearized(filter, measurement, state_shape)


def _check_linearized(filter: MASF, measurement: Measurement, state_shape: tuple[int, ...]) -> None:
    name, fit = type(measurement.operator).__name__, filter.denoiser
    assert isinstance(fit, DenoiserFit)
    if filter.process != "vp" or filter.sampler != "bridge":
        raise ValueError(
            f"the process {filter.process!r} with the sampler {filter.sampler!r} needs a linear measurement "
            f'and route; {name} is to be linearised here, which the process "vp" with the bridge does.'
        )
    if filter.linearization.at == "member" and not fit.couples_members:
        raise ValueError(
            f"{type(fit).__name__} draws members afresh: they have no forecast member to "
            'linearise at. Take GaussianFit(members="transported"), or Linearization("mean"), with proposals '
            "where components are few."
        )
    alone = measurement.operator.coupling(state_shape) == "component" and measurement.noise.diagonal
    if fit.trained and (fit.climatological or not alone):
        raise ValueError(
            "a trained denoiser takes a nonlinear measurement only where each value depends on one "
            f"component and it is trained on the forecasts; {name} does not suit "
            f"{type(fit).__name__}. Take GaussianFit or KernelFit."
        )
