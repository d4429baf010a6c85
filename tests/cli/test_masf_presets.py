"""Every preset of the score-based filter runs, and its keys reach the filter."""

from __future__ import annotations

import json

import numpy as np
import pytest

from masf_jax.cli.config.builders.filters import FILTERS
from masf_jax.cli.config.compose import compose
from masf_jax.cli.main import main
from masf_jax.masf import (
    MASF,
    DualHead,
    GaussianPrior,
    Guided,
    KernelPrior,
    MeasurementAware,
    NetworkPrior,
)
from masf_jax.measurements import Gaussian, Measurement, arctan

TINY = ["filter.network.channels=8", "filter.network.multipliers=[1,2]", "filter.network.blocks=1"]
TINY += ["filter.network.width=8", "filter.network.depth=1", "filter.network.attention=[]"]
TINY += ["filter.pretraining.states=20", "filter.pretraining.epochs=1"]
RUNS = {
    "masf": ["filter=masf"],
    "masf_gaussian": ["filter=masf_gaussian"],
    "masf_kernel": ["filter=masf_kernel"],
    "masf_paper": ["filter=masf_paper", "filter.n_steps=100", "filter.training.epochs=1", *TINY],
    "hybrid": ["filter=masf", "filter.denoiser=hybrid", "filter.training.epochs=1", *TINY],
    "network": ["filter=masf", "filter.denoiser=network", *TINY],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_cycles(name, tmp_path):
    """Slow: of the quick tests test_masf_routes.py runs filter=masf, test_train.py filter=masf_paper."""
    problem = ["dynamics.n=8", "n_cycles=2", "burn_in=0", "ensemble_size=4", "measurement=every_second"]
    arguments = [*problem, *RUNS[name], "figures=false", "scores=[rmse]", f"output_dir={tmp_path}"]
    assert main(["run", *arguments]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert np.isfinite(metrics["rmse_analysis"])
    assert (metrics["seconds_train"] > 0) == (name in ("masf_paper", "network"))


def built(*overrides):
    filter = FILTERS.build(compose(list(overrides)).filter)
    assert isinstance(filter, MASF)
    return filter


def test_the_paper_preset_is_the_papers_algorithm():
    filter = built("filter=masf_paper")
    assert isinstance(filter.process, MeasurementAware)
    assert filter.sampler == Guided(150, "quadratic", 0.992, paper_scales=True)
    assert isinstance(filter.route.of(Measurement(arctan(), Gaussian(1.0))), DualHead)
    assert filter.climatology == 1000
    assert filter.normalization.kind == "fixed"
    fit = filter.prior
    assert isinstance(fit, NetworkPrior)
    assert fit.pretraining is not None
    assert fit.training is not None
    for config in (fit.pretraining, fit.training):
        assert (config.learning_rate, config.weight_decay, config.betas) == (3e-4, 0.01, (0.9, 0.99))
        assert (config.clip, config.batch_size, config.schedule, config.ema_decay) == (
            1,
            32,
            "constant",
            None,
        )
    assert fit.pretraining.steps == 200 * (1000 // 32)
    assert (fit.epochs, fit.restart, fit.weighted) == (120, True, False)
    assert fit.architecture.preconditioning == "x0"
    assert not fit.architecture.variance_head
    net = fit.architecture.net((2, 64, 64))
    assert (net.out_channels, net.channels, net.multipliers, net.blocks) == (2, 32, (1, 2, 4, 8), 2)


def test_keys_reach_the_filter():
    filter = built("filter=masf", "filter.radius=3", "filter.members=fresh", "filter.rtps=0.5")
    assert filter.prior == GaussianPrior(3.0, "fresh", rotation=True)
    assert filter.inflation.rtps is not None
    assert float(filter.inflation.rtps) == 0.5
    kernel = built(
        "filter=masf", "filter.denoiser=kernel", "filter.bandwidth=0.3", "filter.normalization=moving"
    )
    assert isinstance(kernel.prior, KernelPrior)
    assert kernel.prior.bandwidth is not None
    assert float(kernel.prior.bandwidth) == pytest.approx(0.3)
    assert kernel.normalization.kind == "moving"
    network = built("filter=masf", "filter.denoiser=network", "filter.training.epochs=5")
    assert isinstance(network.prior, NetworkPrior)
    assert network.prior.architecture.variance_head
    assert network.prior.epochs == 5
    assert network.normalization.kind == "fixed"
