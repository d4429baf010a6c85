"""What is printed of a result: its size, its scores, what was wrong, in a few lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.core import Tracer

from .filters.faults import described
from .metrics.remarks import remarks

__all__ = ["assimilation_text", "estimate_text", "smoothing_text"]


def assimilation_text(run: Any) -> str:
    """Of an `Assimilation`."""
    members = getattr(run.final, "ensemble", None)
    about = [] if members is None else [f"{len(members)} members"]
    if run.rejected is not None and not isinstance(run.rejected, Tracer):
        about.append(f"{int(np.asarray(run.rejected).sum())} values rejected")
    return _text("Assimilation", run, ("forecast", "analysis"), about)


def smoothing_text(run: Any) -> str:
    """Of a `Smoothing`."""
    return _text("Smoothing", run, ("analysis", "smoothed"), [])


def estimate_text(found: Any) -> str:
    """Of an `Estimate`: mean ± standard deviation of each unknown; arrays by their shape."""
    lines = ["Estimate"]
    for name, mean in found.mean.items():
        if isinstance(mean, Tracer):
            lines.append(f"  {name}: being traced")
        elif np.ndim(mean) == 0:
            lines.append(f"  {name}: {float(mean):.4g} ± {float(found.std[name]):.2g}")
        else:
            lines.append(f"  {name}: {_array(mean)} ± {_array(found.std[name])}")
    return "\n".join(lines)


def _text(kind: str, run: Any, stages: tuple[str, ...], about: list[str]) -> str:
    faults = run.faults
    if isinstance(faults, Tracer):
        return f"{kind} (being traced)"
    if np.ndim(faults) != 1:
        return f"{kind}: a batch of runs, {np.shape(faults)[:-1]}, of {np.shape(faults)[-1]} cycles"
    model = [] if run.given is None else [type(run.given.dynamics).__name__]
    lines = [f"{kind}: " + ", ".join([*model, f"{len(faults)} cycles", *about])]
    for stage in stages:
        scores = getattr(run, f"{stage}_scores")
        shown = [
            f"{label} {np.nanmean(np.asarray(scores[name], np.float64)):.4g}"
            for name, label in (("rmse", "RMSE"), ("spread", "spread"))
            if name in scores
        ]
        saved = ", ".join(sorted(getattr(run, stage))) or "nothing"
        mean = f"{', '.join(shown)} (means over all cycles); " if shown else ""
        lines.append(f"  {stage}: {mean}saved: {saved}")
    flags = [np.asarray(x) for x in (faults, run.diverged, run.skipped)]
    model = None if run.given is None else run.given.dynamics
    names, units = (None, None) if model is None else (model.variable_names, model.variable_units)
    truth = None if run.given is None else run.given.truth
    told = {"skipped": flags[2], "diverged": flags[1], "truth": truth}
    said = remarks(run.info, getattr(run, "forecast", {}), names, units, **told)
    wrong = described(*flags) + said
    return "\n".join([*lines, *(f"  {text}" for text in wrong)])


def _array(values: Any) -> str:
    return np.array2string(np.asarray(values), precision=4, threshold=6)
