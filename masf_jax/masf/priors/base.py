"""The contract of a prior: what is made of each cycle's forecast ensemble."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ...denoisers.base import Denoiser
from ...diffusion.process import Process
from ...dynamics.base import Dynamics
from ...dynamics.layout import MemberLayout, Placement
from ...measurements.measurement import Measurement
from ..climate import Climate

__all__ = ["Prior"]


class Prior(eqx.Module):
    """From a forecast ensemble, in a process's coordinates, to a denoiser that knows nothing of z.

    A subclass gives `__call__`; it may remember across cycles (`init`), and derive things from the model
    (`prepare`).
    """

    placement: ClassVar[Placement] = "replicated"
    """See `Filter`; of one that is replicated the draws are still spread, by members."""

    @abc.abstractmethod
    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        """The denoiser, the memory for the next cycle, and scalars to report."""

    def checked(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        """What the prior returns.

        Raises:
            ValueError: it is not a denoiser, a memory of the structure that it was given, and a dictionary.
        """
        name, made = type(self).__name__, self(key, ensemble, process, memory)
        if not (isinstance(made, tuple) and len(made) == 3 and isinstance(made[2], dict)):
            got = f"{len(made)} things" if isinstance(made, tuple) else type(made).__name__
            raise ValueError(
                f"{name} must return (denoiser, memory, info): a Denoiser, what it remembers (None) and a "
                f"dictionary of scalars to report ({{}}); got {got}."
            )
        if not isinstance(made[0], Denoiser):
            raise ValueError(
                f"{name} must return a masf_jax.denoisers.Denoiser first; got {type(made[0]).__name__}."
            )
        before, after = (jax.tree.structure(each) for each in (memory, made[1]))
        if before != after:
            raise ValueError(
                f"the memory that {name} returns must be of the structure that its init() begins with, "
                f"{before}; got {after}."
            )
        return made

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> Prior:
        """This prior with what it derives from the model; raises ValueError where it does not suit them.

        `climate()` is the model's climatology in the filter's normalisation and process.
        """
        return self

    def spread(self, layout: MemberLayout) -> Prior:
        """This prepared prior, what it holds of the model's points lying where they are analysed."""
        return self

    def init(self) -> Any:
        """What is remembered before the first cycle."""
        return None

    @property
    def climatological(self) -> bool:
        """Whether it knows states in units of the model's climatology only (a fixed normalisation)."""
        return False

    @property
    def couples_members(self) -> bool:
        """Whether each analysis member comes from a forecast member of its own."""
        return False

    @property
    def transports(self) -> bool:
        """Whether it moves the forecast members without noise."""
        return False

    @property
    def rotates(self) -> bool:
        """Whether transported members are to be rotated at random, their mean and covariance kept."""
        return False

    @property
    def trained(self) -> bool:
        """Whether it is a network's, with parameters."""
        return False

    @property
    def of_each_member(self) -> Prior:
        """This prior where each member has a process of its own, to the tangent of H at its own state."""
        return self
