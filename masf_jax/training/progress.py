"""A progress bar for training from the host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from .history import History

__all__ = ["progress_bar"]


@contextlib.contextmanager
def progress_bar(steps: int, visible: bool) -> Iterator[Callable[[History], None]]:
    """What to call with the history after each round; a bar with the newest losses, or nothing."""
    if not visible:
        yield lambda history: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=steps, losses="")

        def report(history: History) -> None:
            loss, validation = _last(history.loss), _last(history.validation_loss)
            text = f"loss {loss:.4g}" + ("" if np.isnan(validation) else f", validation {validation:.4g}")
            skipped = int(history.skipped)
            text += f", {skipped} steps skipped (not finite)" if skipped else ""
            bar.update(task, completed=int(history.steps), losses=text)

        yield report


def _last(values: object) -> float:
    """The newest number, NaN if there is none."""
    known = np.asarray(values)
    known = known[~np.isnan(known)]
    return float(known[-1]) if known.size else float("nan")
