"""Amortised filters on disk."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ...denoisers.architecture import Architecture
from ...ensemble.normalization import Moments
from ...filters.base import MemberFilter
from ...training.checkpoint import CheckpointError, fingerprint as with_data, load, save
from ...training.history import History
from .features import SPACE, Layout
from .filter import AmortisedMASF

__all__ = [
    "fits",
    "load_amortised",
    "pretrained_file",
    "pretrained_folder",
    "pretrained_names",
    "save_amortised",
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


def fits(layout: Layout, trained: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a network trained on states of one shape can run on those of another."""
    space = SPACE[layout]
    if space == 0 or len(shape) != len(trained):
        return shape == trained
    return shape[:-space] == trained[:-space]


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
    **options: Any,
) -> AmortisedMASF:
    """A filter with the trained parts that `save_amortised` wrote.

    Args:
        path: a file, such as `pretrained_file(name)`.
        base: the base filter; to do as well as in training, the one it was trained with.
        net, about: what is expected of the checkpoint (see `load`); None: anything.
        state_shape: of the states it is to run on. A network on a ring or a field serves any size of it; one
            on a vector the size of its training. None: that of the training.
        calibration: instead of the stored one.
        climate: moments of the model it is to run with; "stored": those of the training (of another size,
            None); None: `prepare` draws them from the model.
        options: further arguments of `AmortisedMASF`, as `n_steps`, `members`, `coarsening`.

    Raises:
        FileNotFoundError, CheckpointError: see `load`; or states that the network cannot take.
    """
    stored = load(path, net=net, fingerprint=about)
    arrays, trained = stored.normaliser, stored.state_shape
    shape = trained if state_shape is None else tuple(state_shape)
    if not fits(stored.denoiser.layout, trained, shape):
        raise CheckpointError(
            f"the network of {path} was trained on states of shape {trained} (layout "
            f"{stored.denoiser.layout}) and cannot run on states of shape {shape}: train one for these."
        )
    denoiser = stored.denoiser
    if isinstance(climate, str):
        climate = Moments(arrays["mean"], arrays["variance"]) if shape == trained else None
    made = AmortisedMASF(
        base,
        denoiser,
        climate,
        calibration=jnp.asarray(arrays["calibration"]) if calibration is None else calibration,
        architecture=Architecture(layout=denoiser.layout),
        **options,
    )
    if denoiser.features is None or SPACE[denoiser.layout] == 0:
        return made
    space = SPACE[denoiser.layout]
    seen = (*denoiser.features.shape[:-space], *made.seen_shape(shape)[-space:])
    denoiser = denoiser.with_features(jnp.zeros(seen, denoiser.features.dtype))
    return dataclasses.replace(made, denoiser=denoiser)
