"""Amortised filters on disk."""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...coordinates import Coordinates
from ...denoisers.architecture import Architecture
from ...dynamics.base import Dynamics
from ...ensemble.normalization import Moments
from ...ensemble.statistics import member_mean, member_variance
from ...filters.base import MemberFilter
from ...training.checkpoint import CheckpointError, fingerprint as with_data, inspect, load, save
from ...training.history import History
from .features import SPACE, Layout
from .filter import AmortisedMASF
from .scale import climate_states, correlation_of, matching_coarsening

__all__ = [
    "correlation_within",
    "fits",
    "load_amortised",
    "pretrained_file",
    "pretrained_folder",
    "pretrained_names",
    "save_amortised",
    "suited",
]

_PRETRAINED = Path(__file__).resolve().parent / "pretrained"


def pretrained_names() -> list[str]:
    """The experiments that the package has a trained filter for."""
    return sorted(file.stem for file in _PRETRAINED.glob("*.safetensors"))


def pretrained_file(name: str) -> Path:
    """The file of a trained filter in the package.

    Raises:
        FileNotFoundError: the package has none of that name.
    """
    if name not in pretrained_names():
        raise FileNotFoundError(
            f"no trained filter {name!r} in the package; there are {', '.join(pretrained_names()) or 'none'}"
        )
    return _PRETRAINED / f"{name}.safetensors"


pretrained_folder = pretrained_file
"""The same by its older name, of when each was a folder."""


def fits(
    layout: Layout,
    trained: tuple[int, ...],
    shape: tuple[int, ...],
    coordinates: Coordinates | None = None,
) -> bool:
    """Whether a network trained on states of one shape can run on those of another, at `coordinates`.

    A few variables without coordinates are no ring.
    """
    space = SPACE[layout]
    if shape == trained or space == 0 or len(shape) < len(trained):
        return shape == trained
    if coordinates is None and Architecture().form(shape)[0] == "vector":
        return False
    return shape[:-space] == trained[:-space] or _each_channel(layout, trained, shape, coordinates)


def _each_channel(
    layout: Layout, trained: tuple[int, ...], shape: tuple[int, ...], coordinates: Coordinates | None
) -> bool:
    """Whether a network for states of one channel is to see those of several one by one."""
    several = len(trained) == SPACE[layout] == len(shape) - 1
    return several and Architecture().at(coordinates, shape).form(shape)[0] == layout


def sees_one_by_one(
    path: str | os.PathLike[str], shape: tuple[int, ...], coordinates: Coordinates | None
) -> bool:
    """Whether a checkpoint's network is to see the channels of states of `shape` one by one.

    Raises:
        FileNotFoundError, CheckpointError: see `inspect`; or states that the network cannot take.
    """
    about = inspect(path)
    layout, trained = about["denoiser"]["layout"], tuple(about["state_shape"])
    space = SPACE[layout]
    one_by_one = 0 < space == len(trained) - 1 and about["net"].get("out_channels") == 1
    own = trained
    if one_by_one and not fits(layout, trained, shape):  # another number of channels
        own, one_by_one = trained[-space:], False
    one_by_one = one_by_one or _each_channel(layout, own, shape, coordinates)
    if not (one_by_one or fits(layout, own, shape, coordinates)):
        here = Architecture().at(coordinates, shape).form(shape)[0]
        few = space > 0 and here == "vector" and coordinates is None
        hint = f", or give the model coordinates, if these few are a {layout}" if few else ""
        raise CheckpointError(
            f"the network of {path} was trained on states of shape {trained} (layout {layout}) and cannot "
            f"run on states of shape {shape} (layout {here}): train one for these{hint}."
        )
    return one_by_one


def suited(path: str | os.PathLike[str], states: Float[Array, "K *x"]) -> int:
    """How many cells of a model each way are as large as one of a network's training, by the model's climate.

    1 for a network on a vector, and for one that does not say how its cells hang together
    (`trained_on.correlation`, see `matching_coarsening`).
    """
    about = inspect(path)
    space = SPACE[about["denoiser"]["layout"]]
    correlation = about["fingerprint"].get("trained_on", {}).get("correlation")
    if space == 0 or correlation is None:
        return 1
    levels = len(about["net"].get("multipliers", (1,)))
    return matching_coarsening(states, space, correlation, 2 ** (levels - 1))


def correlation_within(filter: AmortisedMASF, dynamics: Dynamics) -> dict[str, float]:
    """What `trained_on` is to say of a model's cells for `suited`; of a network on a vector nothing."""
    space = SPACE[filter.architecture.form(dynamics.state_shape)[0]]
    if space == 0:
        return {}
    states = climate_states(dynamics, filter.seed, filter.climatology)
    return {"correlation": round(correlation_of(states, filter.coarsening, space), 4)}


def save_amortised(
    path: str | os.PathLike[str],
    filter: AmortisedMASF,
    *,
    about: dict[str, Any] | None = None,
    history: History | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the trained parts of a filter: network, climate, calibration; returns the absolute path.

    Args:
        about: what it was trained on and how well it does, in types JSON knows; `inspect` shows it.

    Raises:
        ValueError: a filter that is not trained. FileExistsError: see `save`.
    """
    if filter.denoiser is None or filter.climate is None:
        raise ValueError("the filter has no network yet: train it (masf_jax.amortised).")
    return save(
        path,
        filter.denoiser,
        filter.climate.mean.shape,
        normaliser={**filter.climate._asdict(), "calibration": filter.calibration},
        fingerprint=with_data(jax.tree.map(np.asarray, filter.climate), **(about or {})),
        history=history,
        overwrite=overwrite,
    )


def load_amortised(
    path: str | os.PathLike[str],
    base: MemberFilter,
    *,
    net: Any = None,
    state_shape: tuple[int, ...] | None = None,
    about: dict[str, Any] | None = None,
    calibration: float | None = None,
    climate: Moments | Literal["stored"] | None = "stored",
    dynamics: Dynamics | None = None,
    coordinates: Coordinates | None = None,
    **options: Any,
) -> AmortisedMASF:
    """A filter with the trained parts that `save_amortised` wrote.

    Args:
        path: a file, such as `pretrained_file(name)`.
        base: the base filter; to do as well as in training, the one it was trained with.
        net, about: what is expected of the checkpoint (see `load`); None: anything.
        state_shape: of the states it is to run on. A network on a ring or a field serves any size of it, and
            one of a single channel any number of them, one by one; one on a vector the size of its training.
            None: that of the training.
        calibration: instead of the stored one.
        climate: moments of the model it is to run with; "stored": those of the training (of another size,
            None); None: `prepare` draws them from the model.
        dynamics: a model other than that of the training: its `state_shape`, its climate, which is drawn, and
            blocks of cells as large as those of the training (`matching_coarsening`), where not given.
        coordinates: of the model's places, where `dynamics` is not given: they tell states of eight or more
            variables at each place of a ring from a field.
        options: further arguments of `AmortisedMASF`, as `n_steps`, `members`, `coarsening`.

    Raises:
        FileNotFoundError, CheckpointError: see `load`; or states that the network cannot take.
    """
    stored = load(path, net=net, fingerprint=about)
    arrays, trained = stored.normaliser, stored.state_shape
    state_shape = state_shape if dynamics is None else dynamics.state_shape
    shape = trained if state_shape is None else tuple(state_shape)
    coordinates = coordinates if dynamics is None else dynamics.coordinates
    each_channel = sees_one_by_one(path, shape, coordinates)
    denoiser, begun = stored.denoiser, stored.fingerprint.get("trained_on", {}).get("filter", {})
    rotation = getattr(base, "rotation", None)
    if (
        denoiser.has_members
        and None not in (rotation, begun.get("rotation"))
        and rotation != begun["rotation"]
    ):
        warnings.warn(
            f"the network of {path} sees each member before and after the base's analysis, and was trained "
            f"on a base with rotation={begun['rotation']}; this one has rotation={rotation}: give the first.",
            stacklevel=2,
        )
    if dynamics is not None:
        seed, most = (options.get(name, value) for name, value in (("seed", 1), ("climatology", 1000)))
        states = climate_states(dynamics, seed, most)
        if not isinstance(climate, Moments):
            climate = Moments(member_mean(states), member_variance(states))
        if "coarsening" not in options and options.get("n_steps", 1) == 1:
            options["coarsening"] = suited(path, states)
    if isinstance(climate, str):
        climate = Moments(arrays["mean"], arrays["variance"]) if shape == trained else None
    made = AmortisedMASF(
        base,
        denoiser,
        climate,
        calibration=jnp.asarray(arrays["calibration"]) if calibration is None else calibration,
        architecture=Architecture(layout=denoiser.layout),
        each_channel=each_channel,
        **options,
    )
    if denoiser.features is None or SPACE[denoiser.layout] == 0:
        return made
    space = SPACE[denoiser.layout]
    channels = shape[:1] if made.each_channel else ()
    kinds = denoiser.features.shape[-space - 1 : -space]
    seen = (*channels, *kinds, *made.seen_shape(shape)[-space:])
    denoiser = denoiser.with_features(jnp.zeros(seen, denoiser.features.dtype))
    return dataclasses.replace(made, denoiser=denoiser)
