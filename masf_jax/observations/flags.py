"""Masks and quality flags of files: which values may be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .csv_files import VALID
from .errors import FileError, printable

__all__ = ["valid_by_flags"]

_GOOD = (
    "accepted",
    "good",
    "good_data",
    "good_value",
    "measured",
    "ok",
    "pass",
    "passed",
    "true",
    "valid",
    "yes",
)


def valid_by_flags(
    path: Path, name: str, data: np.ndarray, attributes: dict[str, str | np.ndarray]
) -> np.ndarray:
    """True where a value may be used.

    Of numbers 1 is valid, 0 and missing (NaN, `_FillValue`) are not; text is "true" or "false"; with
    `flag_meanings` (CF conventions 3.5) those flags are valid whose meaning says so ("good", "valid", …).

    Raises:
        FileError: naming file and variable, where that cannot be told.
    """
    if data.dtype.kind == "U":
        words = np.char.lower(np.char.strip(data))
        unknown = [str(word) for word in np.unique(words) if word not in VALID]
        if unknown:
            raise FileError(
                f"{path}: '{name}' must hold 1 (valid) and 0, or true and false; got "
                f"{printable(unknown[0], 60)!r}."
            )
        return np.isin(words, [word for word, valid in VALID.items() if valid])
    if "flag_meanings" in attributes or "flag_masks" in attributes:
        return _by_meaning(path, name, data, attributes)
    fills = [
        each for each in (attributes.get(key) for key in ("_FillValue", "missing_value")) if each is not None
    ]
    known = np.isin(data, (0, 1))
    for fill in fills:
        if not isinstance(fill, str) and np.any(np.asarray(fill) == 1) and np.any(data == 1):
            raise FileError(
                f"{path}: '{name}' has 1 for valid, and for missing (_FillValue): give it another _FillValue."
            )
        known |= np.isin(data, fill)
    if data.dtype.kind == "f":
        known |= np.isnan(data)
    if not known.all():
        raise FileError(
            f"{path}: '{name}' must hold 1 (valid) and 0; got {data[~known].flat[0]}. Quality flags need "
            "attributes "
            "flag_values and flag_meanings, one of them 'good' or 'valid'."
        )
    return data == 1


def _by_meaning(
    path: Path, name: str, data: np.ndarray, attributes: dict[str, str | np.ndarray]
) -> np.ndarray:
    meanings = str(attributes.get("flag_meanings", "")).lower().split()
    good = [i for i, meaning in enumerate(meanings) if meaning.strip(",;") in _GOOD]
    values, masks = attributes.get("flag_values"), attributes.get("flag_masks")
    given = values if masks is None else masks
    if isinstance(given, str) or given is None or given.size != len(meanings) or not good:
        raise FileError(
            f"{path}: which flags of '{name}' are valid? Its flag_meanings are "
            f"{printable(' '.join(meanings), 120) or 'none'!r}; expected one for each of flag_values (or "
            "flag_masks), one of "
            f"them {', '.join(map(repr, _GOOD[:3]))}, … or give a mask of 1 (valid) and 0."
        )
    if masks is None:
        return np.isin(data, given[good])
    if data.dtype.kind not in "iub" or isinstance(values, np.ndarray):
        raise FileError(
            f"{path}: '{name}' has flag_masks and must hold integers, without flag_values: give a mask "
            "of 1 and 0."
        )
    bits = data.astype(np.int64)
    return np.all([bits & int(given[i]) != 0 for i in good], axis=0)
