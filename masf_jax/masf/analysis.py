"""The score-based analysis: arrays in, arrays out."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..diffusion.process import ProcessFamily
from ..diffusion.samplers import Sampler
from ..diffusion.vp_bridge import VP
from ..ensemble.double import exactly_where, in_double
from ..ensemble.statistics import anomalies
from ..filters.base import whitened_innovations
from ..filters.rounding import of_algebra
from ..measurements.measurement import Measurement
from .priors.base import Prior
from .priors.gaussian import GaussianPrior
from .routes.automatic import Automatic
from .routes.base import Inputs, Route

__all__ = ["masf_analysis"]

Found: TypeAlias = tuple[Array, Any, dict[str, Array]]


def masf_analysis(
    key: PRNGKeyArray | tuple[PRNGKeyArray, PRNGKeyArray],
    members: Float[Array, "N *x"],
    measurement: Measurement,
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"] | None = None,
    *,
    prior: Prior | None = None,
    process: ProcessFamily | None = None,
    sampler: Sampler | None = None,
    route: Route | None = None,
    units: tuple[Float[Array, "*x"], Float[Array, "..."]] | None = None,
    memory: Any = None,
) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
    """N members of p(x | z) from N members of the forecast p(x).

    1. In units of the forecast, v = (x - centre)/scale, a process v_t begins at the state, v_0 = v, and ends
       in the measurement: v_1 is z, in coordinates where H is diagonal, and noise where nothing is measured.
    2. The prior makes a denoiser of the members: D(v_t) = E[v_0 | v_t], which knows nothing of z.
    3. The sampler runs the process backwards from z, with D for what is not known: v_0 ~ p(v_0 | v_1 = z).

    The route says how: directly (linear H), at tangents of H, or by what sees z itself.

    Args:
        key: one, or one for the prior and one for the draws.
        members: (N, *state_shape), in the state's units.
        measurement: operator and noise; z: measured values; mask: those that are there (None: all).
        prior, process, sampler, route: see `MASF`; `prior` prepared where it needs to be.
        units: centre and scale; None: mean and standard deviations of the members.
        memory: what the prior or route remembers of the last analysis (`Route.init` at first).

    Returns:
        The analysis members, the memory for the next analysis, and scalars to report.
    """
    first, second = jax.random.split(key) if isinstance(key, jax.Array) else key
    route = (Automatic() if route is None else route).of(measurement)
    inputs = Inputs(
        prior=GaussianPrior() if prior is None else prior,
        process=VP() if process is None else process,
        sampler=route.sampler() if sampler is None else sampler,
        members=members,
        measurement=measurement,
        z=z,
        mask=jnp.ones(z.shape, bool) if mask is None else mask,
        units=units,
    )
    keys = first, second
    found = route.draw(keys, inputs, memory)
    if route.uses_noise_of_each_state or "rounding" in found[2]:
        return found
    return _exactly(route, keys, inputs, memory, found)


def _exactly(
    route: Route, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any, found: Found
) -> Found:
    """What was `found`, with its round-off; made again in float64 where that matters, but for networks."""
    coarse, fine = _round_off(inputs)
    lost = coarse + found[2].get("residual", 0.0)

    def fast(lost: Array) -> Found:
        return *found[:2], found[2] | {"rounding": lost}

    def exact(_: Array) -> Found:
        drawn, after, info = in_double(
            lambda route, *given: route.draw(*given), route, keys, inputs, memory, result=coarse.dtype
        )
        again = drawn, after, info | {"rounding": fine + info.get("residual", 0.0)}
        return jax.tree.map(lambda new, old: new.astype(old.dtype), again, fast(lost))

    if coarse.dtype == jnp.float64 or inputs.prior.trained:
        return fast(lost)
    return exactly_where(lost, exact, fast)


def _round_off(inputs: Inputs) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Of algebra in the working precision, and in double, that forms no Gram matrix (see `of_algebra`)."""
    members, measurement, z, mask = inputs.members, inputs.measurement, inputs.z, inputs.mask
    d, s = anomalies(whitened_innovations(members, z, mask, measurement))
    return of_algebra(d, s / math.sqrt(len(s) - 1), z, mask, measurement, gram=False)
