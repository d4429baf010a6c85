"""What is said where a localised filter leaves much of the state without measurements."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from masf_jax import dynamics, filters, measurements
from masf_jax.cli.config.compose import compose
from masf_jax.cli.run.cost import Work
from masf_jax.cli.run.problem import build_filter, build_models
from masf_jax.cli.run.reach import out_of_reach, tell_out_of_reach
from masf_jax.masf.priors.gaussian import GaussianPrior

CONFIGS = Path(__file__).parents[2] / "configs"
MODEL = dynamics.Lorenz96(n=40)
SENSOR = measurements.Measurement(measurements.Subset(np.arange(0, 40, 10)), measurements.Gaussian(1.0))


@pytest.mark.parametrize(
    "filter",
    [lambda: filters.LETKF(1.5), lambda: filters.EnSRF(radius=1.5), lambda: filters.MASF(GaussianPrior(1.5))],
    ids=["letkf", "ensrf", "masf"],
)
def test_points_beyond_the_support(filter):
    said = out_of_reach(filter(), MODEL, SENSOR)  # 0, ±1 and ±2 of each 10 are within 3
    assert said is not None
    assert "radius 1.5: 50% of the model's points have no measurement within 3," in said
    assert "up to 5 away" in said


def test_nothing_is_said_where_most_are_reached():
    assert out_of_reach(filters.LETKF(2.6), MODEL, SENSOR) is None  # at most 5 away of 5.2
    assert out_of_reach(filters.LETKF(math.inf), MODEL, SENSOR) is None
    assert out_of_reach(filters.ETKF(), MODEL, SENSOR) is None


def test_it_names_the_filter(capsys):
    tell_out_of_reach([Work("mine", filters.LETKF(1.0), MODEL, SENSOR, 20, 1, 10)])
    said = capsys.readouterr().err
    assert said.startswith("masf-jax: warning: mine: radius 1: 70% of the model's points")


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml")))
@pytest.mark.parametrize("filter", ["letkf", "masf"])
def test_every_experiment_takes_a_localised_filter_and_reaches_its_points(experiment, filter):
    settings = compose([f"experiment={experiment}", f"filter={filter}"])
    model, network = build_models(settings)
    assert out_of_reach(build_filter(settings, model), model, network.measurement) is None
