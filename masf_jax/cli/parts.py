"""Finished parts of a command that computes many: kept one by one, for the same command to go on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import text_writer, write_all

__all__ = ["Parts"]

_SHOWN = 5


class Parts:
    """JSON files in FOLDER/parts, each with what it is the result of.

    Args:
        overwrite: results of something else under the same name may be replaced; else they are refused.
    """

    def __init__(self, folder: Path, overwrite: bool):
        self.folder, self.overwrite = folder / "parts", overwrite

    def read(self, name: str, about: Mapping[str, Any]) -> Any:
        """What `write` was given with the same `about`; None where there is nothing.

        Raises:
            InputError: it is of something else, and `overwrite` is not set.
        """
        path = self.folder / f"{name}.json"
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            of, content = dict(held["of"]), held["result"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            if self.overwrite:
                return None
            raise InputError(
                f"{path} is damaged ({error}): remove it, or add overwrite=true: it is made anew."
            ) from error
        mine, missing = json.loads(json.dumps(about)), object()
        apart = [key for key in dict.fromkeys((*mine, *of)) if mine.get(key, missing) != of.get(key, missing)]
        if not apart:
            return content
        if self.overwrite:
            return None
        shown = ", ".join(f"{key}: {of.get(key)} there, {mine.get(key)} here" for key in apart[:_SHOWN])
        raise InputError(
            f"{self.folder.parent} has results of other settings under the name {name} ({shown}"
            f"{', …' if len(apart) > _SHOWN else ''}): give another folder with output_dir=PATH, or add "
            "overwrite=true."
        )

    def write(self, name: str, about: Mapping[str, Any], result: Any) -> None:
        """Keeps a result (what JSON can hold, with NaN)."""
        text = json.dumps({"of": about, "result": result})
        write_all(self.folder, {f"{name}.json": text_writer(text)})
