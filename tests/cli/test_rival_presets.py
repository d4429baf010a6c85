"""Every preset of another paper's filter runs, and has the settings it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from often import often

from masf_jax import filters as f
from masf_jax.cli.config.builders.filters import FILTERS
from masf_jax.cli.config.compose import compose
from masf_jax.cli.main import main
from masf_jax.filters.rivals.conditional_diffusion import ConditionalDiffusion
from masf_jax.filters.rivals.score_filter import ScoreFilter
from masf_jax.filters.rivals.ssls import SSLS

TINY = ["filter.network.width=8", "filter.network.depth=1", "filter.training.steps=2"]
RUNS = {
    "enff": ["filter.path=f2p"],
    "score_filter": ["filter.n_steps=20", *TINY],
}
KINDS = {
    "ensf": f.EnSF,
    "ensf_lr": f.EnSFLR,
    "iensf": f.IEnSF,
    "enff": f.EnFF,
    "conditional_diffusion": ConditionalDiffusion,
    "score_filter": ScoreFilter,
    "ssls": SSLS,
}


@pytest.mark.parametrize("name", KINDS)
def test_presets_name_every_key_and_build(name):
    section = dict(compose([f"filter={name}"]).filter)
    assert set(FILTERS.check(section)) == set(section), "the file shows all keys"
    assert type(FILTERS.build(FILTERS.check(section))) is KINDS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", often(RUNS, ["enff"]))
def test_two_cycles(name, tmp_path):
    problem = ["dynamics.n=8", "n_cycles=2", "burn_in=0", "ensemble_size=4", "measurement=every_second"]
    arguments = [*problem, f"filter={name}", *RUNS[name], "figures=false", "scores=[rmse]"]
    assert main(["run", *arguments, f"output_dir={tmp_path}"]) == 0
    assert np.isfinite(json.loads((tmp_path / "metrics.json").read_text())["rmse_analysis"])


def test_ensf_has_the_released_settings():
    filter = FILTERS.build(compose(["filter=ensf"]).filter)
    assert isinstance(filter, f.EnSF)
    sampler = filter.sampler
    assert (sampler.n_steps, sampler.batch_size, sampler.start) == (500, 1, "standardised")
    assert (float(sampler.schedule.eps_alpha), float(sampler.schedule.eps_beta)) == (
        0.5,
        pytest.approx(0.025),
    )
    assert filter.normalization.kind == "history", "but for its units"
    other = FILTERS.build(
        compose(["filter=ensf", "filter.batch_size=null", "filter.normalization=raw"]).filter
    )
    assert isinstance(other, f.EnSF)
    assert other.sampler.batch_size is None
    assert other.normalization.kind == "raw"
