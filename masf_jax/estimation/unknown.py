"""What is not known: leaves of a model, a measurement or a filter, each with a prior."""

from __future__ import annotations

import abc
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logit
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ..dynamics.base import Dynamics
from ..filters.base import Filter
from ..measurements.measurement import Measurement
from ..numbers import number, positive

__all__ = ["LogNormal", "LogitNormal", "Normal", "Prior", "Problem", "Unknown", "Unknowns", "scalars"]


class Problem(eqx.Module):
    """All that has numbers in it: a model, what is measured of it, and a filter."""

    dynamics: Dynamics
    measurement: Measurement
    filter: Filter


class Prior(eqx.Module):
    """A law of a value: that of T(u) for u ~ N(0, 1) of each of its numbers. Estimation works with u."""

    @abc.abstractmethod
    def value(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """T(u), increasing."""

    @abc.abstractmethod
    def standard(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """u with T(u) = value."""

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, ""]:
        """log density of a value, the sum over its numbers: log N(u; 0, 1) - log T'(u)."""
        u = self.standard(jnp.asarray(value, float))
        slope = jax.jvp(self.value, (u,), (jnp.ones_like(u),))[1]
        return (jax.scipy.stats.norm.logpdf(u) - jnp.log(slope)).sum()

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the prior's own numbers."""


class Normal(Prior):
    """N(mean, std²): for values of any sign."""

    mean: Float[Array, "..."]
    std: Float[Array, "..."]

    def __init__(self, mean: ArrayLike, std: ArrayLike):
        self.mean, self.std = (
            number("mean of the prior", mean, "(-inf, inf)"),
            positive("std of the prior", std),
        )

    def value(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.mean + self.std * u

    def standard(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        return (value - self.mean) / self.std

    @property
    def shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.mean.shape, self.std.shape)


class LogNormal(Prior):
    """median · exp(spread · u): for positive values; a spread of .1 is about 10 %."""

    median: Float[Array, "..."]
    spread: Float[Array, "..."]

    def __init__(self, median: ArrayLike, spread: ArrayLike = 1.0):
        self.median = positive("median of the prior", median)
        self.spread = positive("spread of the prior", spread)

    def value(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.median * jnp.exp(self.spread * u)

    def standard(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.log(value / self.median) / self.spread

    @property
    def shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.median.shape, self.spread.shape)


class LogitNormal(Prior):
    """low + (high - low) / (1 + exp(-(m + spread · u))): for values in (low, high).

    Args:
        median: None: the middle.
        spread: 1.8 is near the uniform law.
    """

    low: Float[Array, "..."]
    high: Float[Array, "..."]
    median: Float[Array, "..."]
    spread: Float[Array, "..."]

    def __init__(
        self, low: ArrayLike, high: ArrayLike, median: ArrayLike | None = None, spread: ArrayLike = 1.8
    ):
        self.low, self.high = (
            number(f"{name} of the prior", x, "(-inf, inf)") for name, x in (("low", low), ("high", high))
        )
        middle = (np.asarray(low, float) + np.asarray(high, float)) / 2 if median is None else median
        self.median = number("median of the prior", middle, "(-inf, inf)")
        self.spread = positive("spread of the prior", spread)
        if not np.all((self.low < self.median) & (self.median < self.high)):
            raise ValueError(f"the prior needs low < median < high; got {low}, {middle}, {high}.")

    def value(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        width = self.high - self.low
        return self.low + width * jax.nn.sigmoid(logit((self.median - self.low) / width) + self.spread * u)

    def standard(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        width = self.high - self.low
        return (logit((value - self.low) / width) - logit((self.median - self.low) / width)) / self.spread

    @property
    def shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.low.shape, self.high.shape, self.median.shape, self.spread.shape)


class Unknown(NamedTuple):
    """A prior, and how a value is put into a problem.

    Args:
        prior: of the value.
        where: the leaf of a `Problem` that it is; or
        put: problem, value -> problem, for what is no leaf (a model that must be made anew).
        shape: of the value, with `put`; else that of the leaf.
    """

    prior: Prior
    where: Callable[[Problem], Any] | None = None
    put: Callable[[Problem, Array], Problem] | None = None
    shape: tuple[int, ...] = ()


class Unknowns(eqx.Module):
    """All unknowns of a problem as one vector u ~ N(0, I) of p numbers."""

    names: tuple[str, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    puts: tuple[Callable[[Problem, Array], Problem], ...] = eqx.field(static=True)
    priors: tuple[Prior, ...]

    @classmethod
    def of(cls, problem: Problem, unknown: Mapping[str, Prior | Unknown]) -> Unknowns:
        """Of names or paths ("dynamics.forcing", "measurement.noise.std", "filter.radius") and their priors.

        The end of a path ("forcing") stands for it where one number has it.

        Raises:
            ValueError: nothing unknown, a path that leads nowhere or to no number, a prior of another shape.
        """
        if not unknown:
            raise ValueError('nothing is unknown: give unknown={"dynamics.forcing": Normal(8, 1)}, say.')
        names, shapes, puts, priors = [], [], [], []
        for name, given in unknown.items():
            one = given if isinstance(given, Unknown) else Unknown(given)
            if not isinstance(one.prior, Prior):
                raise ValueError(
                    f"{name} needs a prior (Normal, LogNormal, LogitNormal); got {type(one.prior).__name__}."
                )
            full = name if one.put is not None or one.where is not None else _whole_path(name, problem)
            if one.put is not None:
                shape, put = tuple(one.shape), one.put
            elif (of := _with_numbers(_path(full, one.where, problem), problem)) is not None:
                shape, put = (), _PutNumber(*of)
            else:
                shape, put = _leaf(full, one.where or _Follow(full), problem)
            try:
                fits = np.broadcast_shapes(shape, one.prior.shape) == shape
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(f"{name} has shape {shape}, its prior {one.prior.shape}.")
            for kept, new in zip((names, shapes, puts, priors), (name, shape, put, one.prior), strict=True):
                kept.append(new)
        return cls(tuple(names), tuple(shapes), tuple(puts), tuple(priors))

    @property
    def size(self) -> int:
        """p."""
        return sum(math.prod(shape) for shape in self.shapes)

    def values(self, u: Float[Array, " p"]) -> dict[str, Array]:
        """By name."""
        out, at = {}, 0
        for name, shape, prior in zip(self.names, self.shapes, self.priors, strict=True):
            size = math.prod(shape)
            out[name] = prior.value(u[at : at + size].reshape(shape).astype(float))
            at += size
        return out

    def put(self, problem: Problem, u: Float[Array, " p"]) -> Problem:
        """The problem with these values."""
        for put, value in zip(self.puts, self.values(u).values(), strict=True):
            problem = put(problem, value)
        return problem

    def log_prior(self, u: Float[Array, " p"]) -> Float[Array, ""]:
        """log density of u."""
        return -0.5 * (u**2).sum() - 0.5 * self.size * math.log(2 * math.pi)

    def spread(self, u: Float[Array, " p"], std: Float[Array, " p"]) -> dict[str, Array]:
        """Standard deviations of the values, for small ones of u: |T'(u)| std."""
        return self._split(jnp.abs(jax.jvp(self._flat, (u,), (jnp.ones_like(u),))[1]) * std)

    def _flat(self, u: Array) -> Array:
        return jnp.concatenate([value.reshape(-1) for value in self.values(u).values()])

    def _split(self, flat: Array) -> dict[str, Array]:
        sizes = [math.prod(shape) for shape in self.shapes]
        pieces = jnp.split(flat, np.cumsum(sizes)[:-1])
        return {
            name: x.reshape(shape) for name, x, shape in zip(self.names, pieces, self.shapes, strict=True)
        }


class _PutLeaf(NamedTuple):
    """Puts a value in the place of a leaf; two of one place are equal, so that programs are found again."""

    where: Callable[[Problem], Any]
    dtype: Any

    def __call__(self, problem: Problem, value: Array) -> Problem:
        return eqx.tree_at(self.where, problem, value.astype(self.dtype))


class _PutNumber(NamedTuple):
    """Makes a model anew with another number, where it is computed from what was made of its numbers."""

    path: str
    name: str

    def __call__(self, problem: Problem, value: Array) -> Problem:
        model = _followed(problem, self.path)
        return eqx.tree_at(_Follow(self.path), problem, model.with_numbers(**{self.name: value}))


def _with_numbers(name: str, problem: Problem) -> tuple[str, str] | None:
    """Path of a model with numbers of its own, and which of them a path leads to; None: it leads to none."""
    path, _, last = name.rpartition(".")
    model = _followed(problem, path) if path else problem
    if not isinstance(model, Dynamics) or model.numbers is None:
        return None
    if last not in model.numbers:
        known = ", ".join(model.numbers) or "none"
        raise ValueError(
            f"{name}: numbers of {type(model).__name__} that can change are {known}; others are in what was "
            "made of them: with Unknown(prior, put=…) you say how a value gets into the problem."
        )
    return path, last


def _whole_path(name: str, problem: Problem) -> str:
    """The path that a name is, or is the end of.

    Raises:
        ValueError: it is the end of several, or of none.
    """
    if name.split(".")[0] in Problem.__dataclass_fields__:
        return name
    paths = numbers_of(problem)
    fitting = [path for path in paths if path.endswith(f".{name}")]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(f"{name} may be any of {', '.join(fitting)}: give more of its path.")
    near = difflib.get_close_matches(name.rpartition(".")[2], [path.rpartition(".")[2] for path in paths], 1)
    hint = f"; do you mean {near[0]}?" if near else "."
    raise ValueError(f"there is no number {name}{hint} There are {', '.join(paths)}.")


def _path(name: str, where: Callable[[Problem], Any] | None, problem: Problem) -> str:
    """The path of what is unknown: its name, or that of the single number that `where` picks ("": none)."""
    if where is None:
        return name
    picked = where(problem)
    leaves = jax.tree_util.tree_leaves_with_path(problem)
    paths = [_dotted(steps) for steps, leaf in leaves if leaf is picked and np.ndim(leaf) == 0]
    return paths[0] if len(paths) == 1 else ""


def _dotted(steps: tuple[Any, ...]) -> str:
    names = [getattr(step, "name", getattr(step, "idx", getattr(step, "key", ""))) for step in steps]
    return ".".join(map(str, names))


def scalars(problem: Problem) -> list[str]:
    """Paths of the single numbers that can be unknown, but for time steps."""
    return numbers_of(problem, single=True)


def numbers_of(problem: Problem, single: bool = False) -> list[str]:
    """Paths of the numbers that can be unknown, arrays too (unless `single`), but for time steps."""
    found = []
    for steps, leaf in jax.tree_util.tree_leaves_with_path(problem, is_leaf=_has_numbers):
        path = _dotted(steps)
        if _has_numbers(leaf):
            found += [f"{path}.{name}" for name in leaf.numbers]
        elif (
            eqx.is_inexact_array(leaf) and (leaf.ndim == 0 or not single) and path.rpartition(".")[2] != "dt"
        ):
            found.append(path)
    return found


def _has_numbers(node: Any) -> bool:
    return isinstance(node, Dynamics) and node.numbers is not None


def _leaf(name: str, where: Callable[[Problem], Any], problem: Problem) -> tuple[tuple[int, ...], _PutLeaf]:
    """Shape of a leaf, and what puts a value in its place."""
    leaf = where(problem)
    if leaf is None:
        raise ValueError(f"{name} is None, that is off: give it a value to begin with.")
    if not isinstance(leaf, jax.Array | np.ndarray) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        kind = f"array of {leaf.dtype}" if hasattr(leaf, "dtype") else type(leaf).__name__
        raise ValueError(
            f"{name} is no floating-point number of the problem but {kind}: with Unknown(prior, put=…) you "
            "say how a value gets into it."
        )
    return leaf.shape, _PutLeaf(where, leaf.dtype)


class _Follow(NamedTuple):
    """What a dotted path leads to."""

    path: str

    def __call__(self, problem: Problem) -> Any:
        return _followed(problem, self.path)


def _followed(problem: Problem, path: str) -> Any:
    """What a dotted path leads to."""
    found: Any = problem
    for i, step in enumerate(path.split(".")):
        there = isinstance(found, tuple | list) and step.isdigit() and int(step) < len(found)
        if isinstance(found, Mapping) and step in found:
            found = found[step]
            continue
        if not there and not hasattr(found, step):
            fields = [f.name for f in getattr(found, "__dataclass_fields__", {}).values()]
            near = difflib.get_close_matches(step, fields, 1)
            hint = f": do you mean {near[0]}?" if near else f"; it has {', '.join(fields)}."
            before = ".".join(path.split(".")[:i]) or "a problem"
            raise ValueError(f"{path}: {before} has no {step}{hint}")
        found = found[int(step)] if there else getattr(found, step)
    return found
