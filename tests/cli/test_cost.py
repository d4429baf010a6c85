"""The count of a program's operations, and when a run's cost is said."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from masf_jax import dynamics, filters, measurements
from masf_jax.cli.run.cost import Work, cost_of_cycle, tell
from masf_jax.cli.run.operations import counted


def operations(function, *shapes):
    return counted(
        jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    ).operations


def test_operations_of_what_is_known():
    n, m, k = 30, 20, 10
    assert operations(lambda a, b: a @ b, (n, m), (m, k)) == 2 * n * m * k
    assert operations(lambda a: a + 1, (n, m)) == n * m
    large = 500
    cholesky = operations(lambda a: jax.lax.linalg.cholesky(a, symmetrize_input=False), (5, large, large))
    assert cholesky == pytest.approx(5 * large**3 / 3, rel=0.05)
    assert operations(lambda a: jnp.linalg.eigh(a)[0], (large, large)) == pytest.approx(
        9 * large**3, rel=0.05
    )
    assert operations(lambda a: jnp.fft.rfft(a).real, (n, 64)) == pytest.approx(2.5 * n * 33 * 6, rel=0.1)
    square = lambda a: a @ a  # noqa: E731
    loop = lambda a: jax.lax.fori_loop(0, 7, lambda i, x: x @ x, a)  # noqa: E731
    assert operations(loop, (n, n)) == pytest.approx(7 * operations(square, (n, n)), rel=0.01)
    either = lambda a: jax.lax.cond(a[0, 0] > 0, square, lambda a: a, a)  # noqa: E731
    assert operations(either, (n, n)) == pytest.approx(2 * n**3, rel=0.01)


@pytest.mark.parametrize("n", [200, 400])
def test_an_etkf_costs_what_its_products_do(n):
    model = dynamics.Lorenz96(n=n)
    sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(1.0))
    cost = cost_of_cycle(Work("etkf", filters.ETKF(), model, sensor, 40, 1, 1))
    products = 2 * 40 * 40 * n * 2  # S Sᵀ and the transform
    assert products < cost.operations < 6 * products
    assert cost.largest >= 40 * n * 4


def test_only_long_work_is_told(capsys):
    model = dynamics.Lorenz96(n=40)
    sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(1.0))
    work = Work("letkf", filters.LETKF(4.0), model, sensor, 20, 1, 1000)
    tell([work])
    assert capsys.readouterr().err == ""
    tell([Work("letkf", filters.LETKF(4.0), model, sensor, 20, 1, 10**7)] * 2)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("masf-jax: letkf: 20 members of 40 numbers, 40 measured, 10000000 cycles of ")
    assert len(said) == 3
    assert "to an order of magnitude" in said[-1]
    tell([Work("letkf", filters.LETKF(4.0), model, sensor, 20, 1, 10, kept=3 * 10**9)])
    assert "at least 3 GB of memory" in capsys.readouterr().err
