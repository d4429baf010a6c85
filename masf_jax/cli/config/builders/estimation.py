"""Unknown numbers by name: `estimate.NAME={prior:[MEAN,STD],engine:NAME}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import InputError, unknown
from .registry import Group

__all__ = ["ENGINES", "PRIORS", "checked_unknowns", "unknowns_of"]

_HERE = "masf_jax.estimation"
ENGINES = Group(
    "engine",
    {
        "augmented_state": f"{_HERE}.state:AugmentedState",
        "gradient": f"{_HERE}.gradient:Gradient",
        "em": f"{_HERE}.em:EM",
    },
)
PRIORS = Group(
    "prior",
    {
        "normal": f"{_HERE}.unknown:Normal",
        "log_normal": f"{_HERE}.unknown:LogNormal",
        "logit_normal": f"{_HERE}.unknown:LogitNormal",
    },
)
_KEYS = ("prior", "engine")


def unknowns_of(section: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each unknown of a section, by its dotted name, and what is said of it."""
    for name, given in section.items():
        full = f"{before}{name}"
        if isinstance(given, Mapping) and given and not set(_KEYS) & set(given):
            yield from unknowns_of(given, f"{full}.")
        else:
            yield full, given


def checked_unknowns(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section `estimate` with priors and engines complete; of all unknowns there is one engine.

    A prior [MEAN, STD] is a normal one; others are {name: log_normal, median: …}; an engine may be a name.

    Raises:
        InputError: no prior, an unknown key, or two engines.
    """
    found: dict[str, Any] = {}
    engines: dict[str, Any] = {}
    for name, given in unknowns_of(section):
        if not isinstance(given, Mapping) or "prior" not in given:
            raise InputError(
                f"estimate.{name} needs a prior: estimate.{name}={{prior:[MEAN,STD]}}; got {given!r}."
            )
        for key in given:
            if key not in _KEYS:
                raise unknown(f"key (of estimate.{name})", str(key), _KEYS)
        prior, engine = given["prior"], given.get("engine")
        if isinstance(prior, list | tuple):
            if len(prior) != 2:
                raise InputError(f"estimate.{name}.prior must be [MEAN, STD]; got {prior!r}.")
            prior = {"name": "normal", "mean": prior[0], "std": prior[1]}
        prior = PRIORS.check(prior if isinstance(prior, Mapping) else {"name": prior})
        PRIORS.build(prior)  # what its numbers may be
        if engine is not None:
            engines[name] = ENGINES.check(engine if isinstance(engine, Mapping) else {"name": engine})
        found[name] = prior
    if len({repr(engine) for engine in engines.values()}) > 1:
        said = ", ".join(f"{name}: {engine['name']}" for name, engine in engines.items())
        raise InputError(f"estimate: all unknowns are found by one engine; got {said}.")
    engine = next(iter(engines.values()), None) or ENGINES.check({"name": "augmented_state"})
    nested: dict[str, Any] = {}
    for name, prior in found.items():
        *sections, last = name.split(".")
        within = nested
        for each in sections:
            within = within.setdefault(each, {})
        within[last] = {"prior": prior, "engine": engine}
    return nested
