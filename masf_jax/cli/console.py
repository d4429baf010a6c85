"""Where tables and lines are printed."""

from __future__ import annotations

from rich.console import Console

__all__ = ["plain_console"]


def plain_console() -> Console:
    """A console that prints names as they are: `scores=[rmse]` is no style, `model.py:ring:` no emoji."""
    return Console(markup=False, emoji=False)
