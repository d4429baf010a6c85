"""Every filter × every fault: the run goes on with finite states that are right, or says what is not."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates, assimilate, filters, masf
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Climatology as Moments, Function
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Moments as StateMoments
from masf_jax.filters.faults import Fault
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset

STATE, N, STD = 4, 8, 0.5
MEASURED = [0, 1, 2]


def step(x, time):
    """x ← .9 x; x_0 above 150 is beyond the model, x_1 above 150 explodes without being infinite."""
    broken = jnp.where(x[0] > 150, jnp.nan, jnp.where(x[1] > 150, 1e30, 1.0))
    return jnp.where(broken == 1.0, 0.9 * x, broken)


MODEL = Function(step, (STATE,), 1.0, coordinates=Coordinates(np.arange(STATE)[:, None], [STATE]))
CLIMATE = Moments(jnp.asarray(np.zeros(STATE), float), jnp.asarray(4.0 * np.eye(STATE), float))
SMALL = Architecture(width=8, depth=1)

FILTERS = {
    "enkf": filters.EnKF(Inflation(1.05)),
    "etkf": filters.ETKF(Inflation(rtps=0.5)),
    "etkf rotation": filters.ETKF(Inflation(adaptive=True), rotation=True),
    "ensrf": filters.EnSRF(radius=2.0),
    "letkf": filters.LETKF(2.0),
    "letkf eigh": filters.LETKF(2.0, solver="eigh"),
    "enkf_n": filters.EnKFN(),
    "ienkf": filters.IEnKF(),
    "kalman": filters.KalmanFilter(),
    "climatology": filters.Climatology(CLIMATE),
    "oi": filters.OptimalInterpolation(CLIMATE),
    "3dvar": filters.ThreeDVar(moments=CLIMATE, scale=0.5),
    "particle": filters.ParticleFilter(),
    "ensf": filters.EnSF(sampler=filters.EnSFSampler(n_steps=20)),
    "ensf_lr": filters.EnSFLR(),
    "enff": filters.EnFF(n_steps=20),
    "enff f2p": filters.EnFF(n_steps=20, path="f2p"),
    "iensf": filters.IEnSF(),
    "masf": filters.MASF(),
    "masf localised": filters.MASF(prior=masf.GaussianPrior(radius=2.0)),
    "masf perturbed": filters.MASF(prior=masf.GaussianPrior(members="perturbed")),
    "masf kernel": filters.MASF(prior=masf.KernelPrior()),
    "gate": filters.Gate(filters.ETKF(Inflation(1.05)), filters.LETKF(2.0)),
    "amortised": masf.AmortisedMASF(
        filters.ETKF(), architecture=SMALL, climate=StateMoments(jnp.zeros(STATE), 4.0 * jnp.ones(STATE))
    ),
    "amortised ienkf": masf.AmortisedMASF(
        filters.IEnKF(), architecture=SMALL, climate=StateMoments(jnp.zeros(STATE), 4.0 * jnp.ones(STATE))
    ),
}
PAIRS = ("enkf", "etkf", "ensrf", "letkf", "ienkf", "kalman", "3dvar", "particle", "ensf", "masf")
"""Two members are a program of their own: the others are tested with them when slow tests are."""
VARIANTS = [name for name in FILTERS if name not in PAIRS]
MEMBERLESS = ("kalman", "climatology", "oi", "3dvar")


def run(name, members=None, values=None, std=STD, n=N, **options):
    """Three cycles of a twin whose truth is near 1, and the kinds of warnings."""
    rng = np.random.default_rng(3)
    good = 0.9 ** np.arange(1, 4)[:, None] + STD * rng.normal(size=(3, len(MEASURED)))
    spread = np.asarray(1 + rng.normal(size=(n, STATE)), np.float32)
    sensor = Measurement(Subset(MEASURED), Gaussian(std))
    z = Observations(np.asarray(good if values is None else values(good), np.float32), 1)
    first = jnp.asarray(spread if members is None else members(spread), jnp.float32)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        out = assimilate(jax.random.key(2), FILTERS[name], MODEL, sensor, z, first, **options)
    return out, [type(w.message).__name__ for w in seen], np.asarray(z.values)


def at(array, cell, value):
    changed = np.array(array)
    changed[cell] = value
    return changed


def means(out):
    return (np.asarray(getattr(out, stage)["mean"], np.float64) for stage in ("forecast", "analysis"))


def is_finite(out):
    stages = (getattr(out, stage).values() for stage in ("forecast", "analysis"))
    return all(np.isfinite(np.asarray(leaf)).all() for stage in stages for leaf in stage)


def no_faults(out):
    return not np.asarray(out.faults).any() and not np.asarray(out.skipped).any()


def harmless(out, kinds, z):
    return no_faults(out) and not kinds


def one_replaced(out, kinds, z):
    return out.repaired.tolist() == [1, 0, 0] and out.faults.tolist() == [Fault.FORECAST, 0, 0] and not kinds


def left_out(out, kinds, z):
    forecast, analysis = means(out)
    flagged = np.asarray(out.faults) & Fault.INNOVATION > 0
    same = (analysis[1] == forecast[1]).all()
    return (
        flagged.tolist() == out.skipped.tolist() == [False, True, False] and same and "FaultWarning" in kinds
    )


def forecast_stands(out, kinds, z):
    forecast, analysis = means(out)
    return (analysis == forecast).all() and harmless(out, kinds, z)


def hardly_moved(out, kinds, z):
    forecast, analysis = means(out)
    spread = np.asarray(out.forecast["spread"])
    stands = (analysis == forecast).all() and np.asarray(out.skipped).all()
    near = (np.abs(analysis - forecast) <= 3 * spread / np.sqrt(N) + 0.1).all()
    return stands or (near and no_faults(out))


def at_the_values_or_flagged(out, kinds, z):
    """Of each cycle: measured components within .2 forecast spreads of z, or a fault that is warned of."""
    _, analysis = means(out)
    spread = np.asarray(out.forecast["spread"], np.float64)[:, MEASURED]
    near = (np.abs(analysis[:, MEASURED] - z) <= 0.2 * spread + 1e-5).all(1)
    flagged = np.asarray(out.faults) > 0
    return (near | flagged).all() and (not flagged.any() or "FaultWarning" in kinds)


def between_or_flagged(out, kinds, z):
    """Measured components between forecast and z, give or take two noise standard deviations; or a fault."""
    forecast, analysis = (mean[:, MEASURED] for mean in means(out))
    low, high = np.minimum(forecast, z) - 2 * STD, np.maximum(forecast, z) + 2 * STD
    return (((analysis >= low) & (analysis <= high)).all(1) | (np.asarray(out.faults) > 0)).all()


FAULTS = {
    "nothing wrong": ({}, harmless),
    "a member not finite": ({"members": lambda m: at(m, (0, 0), 200.0)}, one_replaced),
    "a member explodes": ({"members": lambda m: at(m, (0, 1), 200.0)}, one_replaced),
    "all members equal": ({"members": lambda m: np.ones_like(m)}, between_or_flagged),
    **{
        f"z = {value:g}": ({"values": lambda z, value=value: at(z, (1, 1), value)}, left_out)
        for value in (1e6, 1e10, 1e20, 1e38)
    },
    "z infinite": ({"values": lambda z: at(z, (1, 1), np.inf)}, harmless),
    **{f"noise {std:g}": ({"std": std}, at_the_values_or_flagged) for std in (1e-30, 1e-12, 1e-5)},
    **{f"noise {std:g}": ({"std": std}, hardly_moved) for std in (1e15, 1e30)},
    "nothing measured": ({"values": lambda z: np.nan * z}, forecast_stands),
    "two members": ({"n": 2}, between_or_flagged),
}
SURE = ("noise 1e-12", "noise 1e-05")
EXCEPTIONS = {
    **{("climatology", f"z = {value:g}"): "uses no value" for value in (1e6, 1e10, 1e20, 1e38)},
    **{("climatology", fault): "uses no value" for fault in ("noise 1e-30", *SURE)},
    **{("particle", fault): "has no states but its particles: effective_sample_size is 1" for fault in SURE},
    ("particle", "noise 1e-30"): "the same; the whitened innovations are beyond float32",
    ("particle", "two members"): "two particles are one draw and its jitter",
    **{
        (name, fault): "guided draws do not reach what is sure (docs/rivals.md)"
        for name in ("ensf", "ensf_lr", "iensf")
        for fault in SURE
    },
}
"""Cells that are neither right nor flagged, and why that is so by construction."""


def quick(name):
    """The faults of that filter that are always tested."""
    return [fault for fault in FAULTS if fault != "two members" or name not in VARIANTS]


OFTEN = ("etkf", "ienkf", "kalman", "3dvar", "climatology", "particle", "enff")
"""One of each make; the others with the slow tests."""
CASES = [
    pytest.param(name, quick(name), marks=[pytest.mark.slow] * (name not in OFTEN)) for name in FILTERS
] + [
    pytest.param(name, ["two members"], marks=pytest.mark.slow, id=f"{name}, two members")
    for name in VARIANTS
]


@pytest.mark.quick_cases("climatology", "kalman")
@pytest.mark.parametrize(("name", "faults"), CASES, ids=[*FILTERS, *(None,) * len(VARIANTS)])
def test_filter_by_fault(name, faults):
    wrong = []
    for fault in faults:
        how, right = FAULTS[fault]
        if name in MEMBERLESS and right is one_replaced:
            continue  # no members: one broken state is a divergence, below
        out, kinds, z = run(name, **how)
        verdict = is_finite(out) and not np.asarray(out.diverged).any() and right(out, kinds, z)
        if verdict == ((name, fault) in EXCEPTIONS):
            wrong.append(
                (
                    fault,
                    out.faults.tolist(),
                    *(np.round(mean, 3).tolist() for mean in means(out)),
                    np.round(out.forecast["spread"], 3).tolist(),
                    np.round(z, 3).tolist(),
                    kinds,
                )
            )
    assert not wrong, "\n".join(map(str, wrong))
