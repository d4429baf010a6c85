"""What is wrong with a file of observations, in one message; text as a terminal may show it."""

from __future__ import annotations

import unicodedata

__all__ = ["FileError", "printable"]


class FileError(Exception):
    """A file that is not what it should be, or that does not fit the model, sensor and times asked for."""


def printable(text: str, longest: int | None = None) -> str:
    """Text as a terminal may show it: control and format characters (escape sequences among them) escaped,
    lines kept, cut where it is longer than `longest`."""
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "…"
    return "".join(
        repr(each)[1:-1]
        if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") and each != "\n"
        else each
        for each in text
    )
