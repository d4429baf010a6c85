"""Trained denoisers on disk, with all that says what they are good for."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..denoisers.network import NetworkDenoiser
from ..nn import describe, from_description
from .history import History

__all__ = ["Checkpoint", "CheckpointError", "fingerprint", "inspect", "load", "save"]

_FORMAT = 2
_OPTIONS = ("layout", "noise_map", "preconditioning", "variance_head")


class CheckpointError(ValueError):
    """A checkpoint is not one, or not the one that was asked for."""


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
    return {**_plain(description), "data": _digest(data)}


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
    """Writes a directory with the denoiser and its circumstances; returns its absolute path.

    Args:
        path: The directory, relative to the working directory or absolute; `~` is the home directory.
        normaliser: Arrays that normalise a state, by name.
        fingerprint: See `fingerprint`.
        overwrite: Whether an existing directory may be replaced.

    Raises:
        FileExistsError: The path exists and `overwrite` is false.
    """
    import orbax.checkpoint as ocp  # here, not above: it takes long to import

    where = _absolute(path)
    if where.exists() and not overwrite:
        raise FileExistsError(f"{where} exists: choose another path, or overwrite=True")
    about = {
        "format": _FORMAT,
        "net": describe(denoiser.net),
        "denoiser": {name: getattr(denoiser, name) for name in _OPTIONS},
        "state_shape": list(state_shape),
        "fingerprint": _plain(fingerprint or {}),
    }
    arrays = {"params": denoiser.params, "normaliser": dict(normaliser or {})}
    arrays["features"] = {} if denoiser.features is None else {"values": denoiser.features}
    arrays["history"] = {} if history is None else dict(vars(history))
    arrays = jax.tree.map(np.asarray, {name: tree for name, tree in arrays.items() if tree})
    about["arrays"] = _digest(arrays)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        items = {"about": ocp.args.JsonSave(about), "arrays": ocp.args.StandardSave(arrays)}
        writer.save(where, ocp.args.Composite(**items), force=overwrite)
    return where


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says of itself, without its arrays: net, denoiser, state_shape, fingerprint.

    Raises:
        FileNotFoundError: Nothing is there.
        CheckpointError: What is there is no checkpoint of this package, or of another version.
    """
    import orbax.checkpoint as ocp

    where = _absolute(path)
    if not where.exists():
        raise FileNotFoundError(f"no checkpoint at {where}")
    if not (where / "about").is_dir() or not (where / "arrays").is_dir():
        raise CheckpointError(f"{where} is no checkpoint of masf_jax (no 'about' and 'arrays' in it)")
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        about = reader.restore(where, ocp.args.Composite(about=ocp.args.JsonRestore())).about
    if about.get("format") != _FORMAT:
        raise CheckpointError(
            f"{where} has format {about.get('format')}, but this version of masf_jax reads {_FORMAT}: "
            "train again"
        )
    return about


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
        CheckpointError: What is there is no checkpoint of this package, differs from what is expected, or has
            arrays that were not saved with it; the message lists every difference.
    """
    import orbax.checkpoint as ocp

    where, about = _absolute(path), inspect(path)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        arrays = reader.restore(where, ocp.args.Composite(arrays=ocp.args.StandardRestore())).arrays
    wrong = _differences("net", about["net"], None if net is None else describe(net))
    if state_shape is not None and list(state_shape) != about["state_shape"]:
        wrong.append(f"state shape: stored {tuple(about['state_shape'])}, expected {tuple(state_shape)}")
    wrong += _differences("fingerprint", about["fingerprint"], _plain(fingerprint or {}))
    wrong += _distances(arrays.get("normaliser", {}), normaliser or {})
    if _digest(arrays) != about["arrays"]:
        wrong.append("arrays: not those that were saved with the description beside them")
    if wrong:
        lines = "\n  ".join(wrong)
        raise CheckpointError(
            f"the checkpoint {where} is of something else:\n  {lines}\n"
            "Use the settings it was trained with, or train one for these."
        )
    arrays = jax.tree.map(jnp.asarray, arrays)
    features = arrays.get("features", {}).get("values")
    stored = from_description(about["net"])
    history = arrays.get("history")
    return Checkpoint(
        denoiser=NetworkDenoiser(stored, arrays["params"], features, **about["denoiser"]),
        state_shape=tuple(about["state_shape"]),
        normaliser=arrays.get("normaliser", {}),
        fingerprint=about["fingerprint"],
        history=None if history is None else History(**history),
    )


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().resolve()


def _digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _plain(value: Any) -> Any:
    """As it comes back from JSON: tuples are lists, array scalars numbers."""
    return json.loads(json.dumps(value, default=lambda item: np.asarray(item).tolist()))


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
