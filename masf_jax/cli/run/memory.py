"""What a run will take of memory, by part, before it starts: `masf-jax run … --dry-run`."""

from __future__ import annotations

import math
import resource
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ...driver import assimilate
from ...filters import EnsembleState
from ...filters.faults import FaultPolicy
from ...measurements import Observations
from ...quality_control import GrossErrorCheck
from ...record import BUFFER
from ...scan import automatic_chunk
from ..config.settings import Settings
from ..errors import InputError
from ..process import computing
from .pretrained import pretraining_fit
from .problem import AT_ONCE, build_filter, build_models, member_layout

__all__ = ["memory_by_part", "print_memory"]


def memory_by_part(settings: Settings) -> dict[str, int]:
    """Bytes by part, but for what XLA takes while it compiles.

    XLA's account of the compiled program of a chunk has its arguments, results and temporary arrays; the rest
    is counted: truth and observations made before the first cycle, results that wait to be written.

    Raises:
        InputError: settings that do not make a run, or a network that is to be pretrained first.
    """
    if settings.estimate:
        raise InputError("--dry-run: of runs without estimate only.")
    with computing(settings):
        dynamics, network = build_models(settings)
        filter, measurement = build_filter(settings, dynamics), network.measurement
        if pretraining_fit(filter) is not None:
            raise InputError("--dry-run: the filter pretrains a network first; train it with masf-jax train.")
        layout, n_cycles = member_layout(settings), settings.n_cycles or 1
        threshold = settings.quality_control.threshold
        try:
            filter = filter.prepare(dynamics, measurement)
        except (ValueError, NotImplementedError) as error:
            raise InputError(str(error)) from error
        libraries = _resident()
        shape, measured = dynamics.state_shape, measurement.output_shape(dynamics.state_shape)
        number = np.dtype(settings.precision)
        members = jax.ShapeDtypeStruct((settings.ensemble_size, *shape), number)
        state = eqx.filter_eval_shape(filter.init, jax.random.key(0), members)
        size = settings.ensemble_size if isinstance(state, EnsembleState) else math.prod(shape)
        kept = (shape, measured, number.itemsize, size, settings.save)
        chunk = settings.chunk or automatic_chunk(n_cycles, settings.steps_per_cycle, *kept)

        arrays, rest = eqx.partition((filter, dynamics, measurement), eqx.is_array)

        @jax.jit
        def program(arrays: Any, values: Any, truth: Any, members: Any) -> Any:
            filter, dynamics, measurement = eqx.combine(arrays, rest)
            return assimilate(
                jax.random.key(0),
                filter,
                dynamics,
                measurement,
                Observations(values, settings.steps_per_cycle),
                members,
                truth=truth,
                save=settings.save,
                scores=settings.scores,
                layout=layout,
                quality_control=None if threshold is None else GrossErrorCheck(threshold),
                policy=FaultPolicy(settings.faults.action, settings.faults.innovation),
            )

        values = jax.ShapeDtypeStruct((chunk, *measured), number)
        truth = jax.ShapeDtypeStruct((chunk, *shape), number)
        account = program.lower(arrays, values, truth, members).compile().memory_analysis()
        if account is None:
            raise InputError("--dry-run: XLA keeps no account of memory for this device.")
        compiler = max(0, _resident() - libraries)
    n, m = (math.prod(each) * number.itemsize for each in (shape, measured))
    program_bytes = {
        "given": account.argument_size_in_bytes,
        "results": account.output_size_in_bytes,
        "temporary arrays": account.temp_size_in_bytes,
    }
    given = n_cycles * (n + m + m // number.itemsize)
    along = settings.observations.path is None and n_cycles * (n + m) > AT_ONCE
    of_chunk = account.output_size_in_bytes
    return {
        "interpreter, libraries, model, prepared filter": libraries,
        "what XLA keeps after compiling": compiler,
        "first members": settings.ensemble_size * n,
        "truth and observations made before": given * chunk // n_cycles if along else given,
        **{f"program of {chunk} cycle(s): {name}": size for name, size in program_bytes.items()},
        "results that wait to be written": min(of_chunk * n_cycles // chunk, of_chunk + BUFFER),
    }


def print_memory(settings: Settings) -> None:
    """The parts and their sum, in MB."""
    parts = memory_by_part(settings)
    for name, size in {**parts, "together": sum(parts.values())}.items():
        print(f"{name:<60} {size / 2**20:>10,.1f} MB")


def _resident() -> int:
    """Bytes of this process that lie in memory now; the most so far where the system does not say."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
