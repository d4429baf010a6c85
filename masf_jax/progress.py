"""A progress bar over cycles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["cycle_bar"]


@contextlib.contextmanager
def cycle_bar(show: bool, total: int) -> Iterator[Callable[[int], None]]:
    """What to call with the number of cycles done since the last call; a bar with time left, or nothing."""
    if not show:
        yield lambda n: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn("cycles"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("cycles", total=total)
        yield lambda n: bar.advance(task, n)
