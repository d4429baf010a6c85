"""Filters by name."""

from __future__ import annotations

import functools

from .masf import finished, with_former_keys
from .noise_found import with_adaptive_noise
from .own import own_filter
from .registry import Entry, Group

__all__ = ["FILTERS"]

_KALMAN, _RIVALS, _HERE = "masf_jax.filters.kalman", "masf_jax.filters.rivals", __package__


def _masf(prior: str) -> Entry:
    """MASF with this prior, if no other is asked for."""
    adapt = functools.partial(with_former_keys, prior=prior)
    return Entry("masf_jax.masf.filter:MASF", adapt=adapt, finish=(finished, with_adaptive_noise))


def _members(make: str, *hidden: str) -> Entry:
    """A filter of members without weights, which may find the noise, too; hidden: keys it does not have."""
    return Entry(make, hidden, finish=(with_adaptive_noise,))


FILTERS = Group(
    "filter",
    {
        "enkf": _members(f"{_KALMAN}.enkf:EnKF"),
        "etkf": _members(f"{_KALMAN}.etkf:ETKF"),
        "ensrf": _members(f"{_KALMAN}.ensrf:EnSRF"),
        "letkf": _members(f"{_KALMAN}.letkf:LETKF"),
        # enkf_n infers its inflation itself, ienkf forecasts again and again
        "enkf_n": _members(f"{_KALMAN}.enkf_n:EnKFN", "adaptive"),
        "ienkf": _members(f"{_KALMAN}.ienkf:IEnKF", "adaptive", "prior"),
        "kalman": f"{_KALMAN}.exact:KalmanFilter",
        "particle": "masf_jax.filters.particle:ParticleFilter",
        "climatology": "masf_jax.filters.baselines:Climatology",
        "optimal_interpolation": "masf_jax.filters.baselines:OptimalInterpolation",
        "three_d_var": "masf_jax.filters.baselines:ThreeDVar",
        "ensf": _members(f"{_RIVALS}.ensf:EnSF"),
        "ensf_lr": _members(f"{_RIVALS}.ensf_lr:EnSFLR"),
        "iensf": _members(f"{_RIVALS}.iensf:IEnSF"),
        "enff": _members(f"{_RIVALS}.enff:EnFF"),
        "conditional_diffusion": f"{_RIVALS}.conditional_diffusion:ConditionalDiffusion",
        "score_filter": f"{_RIVALS}.score_filter:ScoreFilter",
        "ssls": f"{_RIVALS}.ssls:SSLS",
        "masf": _masf("gaussian"),
        "masf_gaussian": _masf("gaussian"),
        "masf_kernel": _masf("kernel"),
        "masf_paper": f"{_HERE}.networks:masf_paper",
        "masf_amortised": f"{_HERE}.amortised:masf_amortised",
    },
    own=own_filter,
)
