"""What the keys of the score-based filter have beyond the constructors of its parts, and were before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ....masf import MASF, Automatic, Linearized

__all__ = ["automatic", "finished", "linearized", "with_former_keys"]


def automatic(linearization: Linearized) -> Automatic:
    """By the operator's structure: linear, or linearised."""
    return Automatic(linearization)


def linearized(linearization: Linearized) -> Linearized:
    """At tangents of the operator."""
    return linearization


def finished(made: MASF, checkpoint: str | None = None) -> MASF:
    """The network has a second output where the sampler uses it.

    Args:
        checkpoint: a file of masf-jax train: a network to use instead of pretraining one.
    """
    alone = hasattr(made.prior, "pretraining")  # a NetworkPrior, without the imports that its class takes
    if checkpoint is not None and not alone:
        raise ValueError(
            "checkpoint is of a network alone (prior=network); the route takes no checkpoint where it trains "
            "its network itself, and other priors have none."
        )
    if alone and not getattr(made.sampler, "corrected", True):
        prior: Any = made.prior
        plain = dataclasses.replace(prior.architecture, variance_head=False)
        return dataclasses.replace(made, prior=dataclasses.replace(prior, architecture=plain))
    return made


def with_former_keys(section: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Earlier keys by their present names, and keys that hang on others.

    `denoiser` is `prior`; route=conditional is conditional_kernel or conditional_network by it, and has no
    prior; null was what a sampler, a training or a normalisation takes itself.
    """
    found = {**defaults, **section}
    found["prior"] = prior = found.pop("denoiser", found.get("prior", "gaussian"))
    if found.get("route") == "conditional":
        if prior not in ("kernel", "network"):
            raise ValueError(
                "route=conditional needs a denoiser that sees the measured values: denoiser=kernel (few "
                f"components) or denoiser=network (trained in every cycle); got denoiser={prior}."
            )
        found["route"] = f"conditional_{prior}"
    if str(found.get("route")).startswith("conditional_"):
        found["prior"] = None
    if found.get("n_steps") is None:
        found.pop("n_steps", None)
        if found.get("route") == "conditional_network" and found.get("sampler", "bridge") == "bridge":
            from ....masf import ConditionalNetwork

            found["n_steps"] = getattr(ConditionalNetwork().sampler(), "n_steps")  # noqa: B009 - a Bridge
    if found.get("normalization") is None and (found["prior"] == "network" or found.get("affine") is False):
        found["normalization"] = "fixed" if found["prior"] == "network" else "cycle"
    return found
