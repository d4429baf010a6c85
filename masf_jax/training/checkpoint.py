"""Trained denoisers on disk, with all that says what they are good for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..denoisers.network import NetworkDenoiser
from ..nn import describe, from_description
from .files import CheckpointError, absolute, digest, plain, read, write
from .history import History

__all__ = ["Checkpoint", "CheckpointError", "fingerprint", "inspect", "load", "save"]

_OPTIONS = ("layout", "noise_map", "preconditioning", "variance_head")


class Checkpoint(eqx.Module):
    """What a checkpoint holds.

    Attributes:
        denoiser: The trained denoiser.
        state_shape: Shape of one state.
        normaliser: Arrays that normalise a state, by name.
        fingerprint: What the training data were, in types JSON knows.
        history: Of the training, or None.
    """

    denoiser: NetworkDenoiser
    state_shape: tuple[int, ...] = eqx.field(static=True)
    normaliser: dict[str, Any]
    fingerprint: dict[str, Any] = eqx.field(static=True)
    history: History | None


def fingerprint(data: Any, **description: Any) -> dict[str, Any]:
    """The description (dynamics, measurement, seed, …) together with a hash of the training data.

    Args:
        data: A tree of arrays; shapes, types and values all enter the hash, so it tells the same states from
            any others, those of the same settings with another compiler or processor included.
        description: Anything JSON can hold.
    """
    return {**plain(description), "data": digest(data)}


def save(
    path: str | os.PathLike[str],
    denoiser: NetworkDenoiser,
    state_shape: tuple[int, ...],
    *,
    normaliser: dict[str, Any] | None = None,
    fingerprint: dict[str, Any] | None = None,
    history: History | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes one file with the denoiser and its circumstances; returns its absolute path.

    Args:
        path: The file, NAME.safetensors by custom, relative to the working directory or absolute; `~` is the
            home directory.
        normaliser: Arrays that normalise a state, by name.
        fingerprint: See `fingerprint`.
        overwrite: Whether an existing file may be replaced; it is whole until the new one is.

    Raises:
        FileExistsError: The path is a folder, or it exists and `overwrite` is false.
    """
    where = absolute(path)
    if where.is_dir():
        raise FileExistsError(
            f"{where} is a folder, and a checkpoint is one file: name it {where}.safetensors"
        )
    if where.exists() and not overwrite:
        raise FileExistsError(f"{where} exists: choose another path, or overwrite=True")
    about = {
        "net": describe(denoiser.net),
        "denoiser": {name: getattr(denoiser, name) for name in _OPTIONS},
        "state_shape": list(state_shape),
        "fingerprint": plain(fingerprint or {}),
    }
    arrays = {"params": denoiser.params, "normaliser": dict(normaliser or {})}
    features = denoiser.features
    if features is not None and not np.any(np.asarray(features)):  # a place for those of each cycle
        about["features"] = {"shape": list(features.shape), "dtype": str(features.dtype)}
    elif features is not None:
        arrays["features"] = {"values": features}
    arrays["history"] = {} if history is None else dict(vars(history))
    write(where, about, arrays)
    return where


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says of itself, without its arrays: net, denoiser, state_shape, fingerprint.

    Raises:
        FileNotFoundError: Nothing is there.
        CheckpointError: What is there is no checkpoint of this package, or of another version, or changed.
    """
    return _read(absolute(path))[0]


def load(
    path: str | os.PathLike[str],
    *,
    net: Any = None,
    state_shape: tuple[int, ...] | None = None,
    normaliser: dict[str, Any] | None = None,
    fingerprint: dict[str, Any] | None = None,
) -> Checkpoint:
    """Reads what `save` wrote, and refuses it where it is not what the caller expects.

    Args:
        net: The network that is expected; None to take any.
        state_shape: The shape of one state that is expected; None to take any.
        normaliser: Arrays the stored normaliser must have, to a relative 1e-5; others are not compared.
        fingerprint: Entries the stored fingerprint must have, with these values; others are not compared.

    Raises:
        FileNotFoundError: Nothing is there.
        CheckpointError: What is there is no checkpoint of this package, was changed since it was written, or
            differs from what is expected; the message lists every difference.
    """
    where = absolute(path)
    about, arrays = _read(where)
    try:
        return _checked(where, about, arrays, net, state_shape, normaliser, fingerprint)
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{where} lacks what a checkpoint of masf_jax has ({error!r}): train again"
        ) from error


def _checked(
    where: Path,
    about: dict[str, Any],
    arrays: dict[str, Any],
    net: Any,
    state_shape: tuple[int, ...] | None,
    normaliser: dict[str, Any] | None,
    fingerprint: dict[str, Any] | None,
) -> Checkpoint:
    """See `load`."""
    stored = from_description(about["net"])  # with the arguments that its version did not know
    wrong = _differences("net", describe(stored), None if net is None else describe(net))
    if state_shape is not None and list(state_shape) != about["state_shape"]:
        wrong.append(f"state shape: stored {tuple(about['state_shape'])}, expected {tuple(state_shape)}")
    wrong += _differences("fingerprint", about["fingerprint"], plain(fingerprint or {}))
    wrong += _distances(arrays.get("normaliser", {}), normaliser or {})
    if wrong:
        lines = "\n  ".join(wrong)
        raise CheckpointError(
            f"the checkpoint {where} is of something else:\n  {lines}\n"
            "Use the settings it was trained with, or train one for these."
        )
    if "features" in about:
        arrays = {**arrays, "features": {"values": np.zeros(**about["features"])}}
    arrays = jax.device_put(arrays)  # jnp.asarray would compile a program for each shape
    features = arrays.get("features", {}).get("values")
    history = arrays.get("history")
    return Checkpoint(
        denoiser=NetworkDenoiser(stored, arrays["params"], features, **about["denoiser"]),
        state_shape=tuple(about["state_shape"]),
        normaliser=arrays.get("normaliser", {}),
        fingerprint=about["fingerprint"],
        history=None if history is None else History(**history),
    )


def _differences(what: str, stored: dict[str, Any], expected: dict[str, Any] | None) -> list[str]:
    """One line for each entry expected that is stored otherwise."""
    missing = object()
    lines = []
    for name, value in (expected or {}).items():
        have = stored.get(name, missing)
        if have != value:
            found = "nothing" if have is missing else repr(have)
            lines.append(f"{what} {name}: stored {found}, expected {value!r}")
    return lines


def _distances(stored: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """One line for each array expected that is stored otherwise."""
    lines = []
    for name, value in expected.items():
        wanted, have = np.asarray(value), stored.get(name)
        if have is None or np.shape(have) != wanted.shape:
            found = "nothing" if have is None else f"shape {np.shape(have)}"
            lines.append(f"normaliser {name}: stored {found}, expected shape {wanted.shape}")
        elif not np.allclose(have, wanted, rtol=1e-5, atol=0.0):
            away = np.abs(np.asarray(have) - wanted).max()
            lines.append(f"normaliser {name}: differs by up to {away:.4g}")
    return lines


def _read(where: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a file, or of a folder of an older version (Orbax, only then imported)."""
    if not where.is_dir():
        return read(where)
    from .orbax_folder import read_folder

    return read_folder(where)
