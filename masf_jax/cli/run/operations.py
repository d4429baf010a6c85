"""Arithmetic operations and largest arrays of a function, counted in the program that JAX traces of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

__all__ = ["Count", "counted"]

_CUBES = {
    "eigh": 9.0,
    "svd": 20.0,
    "lu": 2 / 3,
    "cholesky": 1 / 3,
    "qr": 2.0,
    "geqrf": 2.0,
    "householder_product": 2.0,
}
"""Operations of a factorisation in n³ of n × n (m n² of m × n): Golub & Van Loan (2013)."""
_TURNS = 10
"""Of a loop that ends when a condition says so: conjugate gradients take about so many."""
_KEPT = {"dot_general", "conv_general_dilated", "fft", "sort", "scan", "while", "triangular_solve", *_CUBES}
"""What leaves an array in memory; what works element by element, XLA makes part of something else."""


@dataclasses.dataclass(frozen=True)
class Count:
    """operations: of all that is done; largest: bytes of the largest arrays that one step leaves."""

    operations: float
    largest: int

    def __add__(self, other: Count) -> Count:
        return Count(self.operations + other.operations, max(self.largest, other.largest))

    def times(self, n: int) -> Count:
        return dataclasses.replace(self, operations=n * self.operations)


_NOTHING = Count(0.0, 0)


def counted(program: Any) -> Count:
    """Of a program as `jax.make_jaxpr` gives it.

    An addition, a multiplication, a function of one number count as one operation. A loop whose length is not
    known counts 10 times, and of alternatives the dearest counts.
    """
    return _of_equations(program.jaxpr)


def _of_equations(jaxpr: Any) -> Count:
    return sum((_of_equation(each) for each in jaxpr.eqns), _NOTHING)


def _of_equation(equation: Any) -> Count:
    name, parameters = equation.primitive.name, equation.params
    inner = [_of_equations(jaxpr) for jaxpr in _programs(parameters)]
    kept = sum(_bytes(v.aval) for v in equation.outvars) if name in _KEPT else 0
    if name == "cond":
        found = max(inner, key=lambda each: each.operations)
    elif inner:
        turns = parameters["length"] if name == "scan" else _TURNS if name == "while" else 1
        found = sum(inner, _NOTHING).times(turns)
    else:
        found = Count(_operations(name, equation), 0)
    return found + Count(0.0, kept)


def _operations(name: str, equation: Any) -> float:
    given = [v.aval for v in equation.invars]
    out = sum(math.prod(getattr(v.aval, "shape", ())) for v in equation.outvars)
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2.0 * out * math.prod(given[0].shape[i] for i in contracted)
    if name == "conv_general_dilated":
        features = equation.params["dimension_numbers"].rhs_spec[0]
        return 2.0 * out * math.prod(given[1].shape) / given[1].shape[features]
    if name == "fft":
        return 2.5 * out * math.log2(max(2, math.prod(equation.params["fft_lengths"])))
    if name == "triangular_solve":
        return float(out * given[0].shape[-1])
    if name in _CUBES:
        *batch, m, n = given[0].shape
        return _CUBES[name] * math.prod(batch) * m * n * min(m, n)
    return float(out)


def _programs(parameters: dict[str, Any]) -> Iterator[Any]:
    """The programs that an equation runs."""
    for value in parameters.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "eqns"):
                yield each
            elif hasattr(getattr(each, "jaxpr", None), "eqns"):
                yield each.jaxpr


def _bytes(aval: Any) -> int:
    size = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return math.prod(getattr(aval, "shape", ())) * size
