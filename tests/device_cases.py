"""Run by test_devices.py in a process with eight CPU devices: filters on them against one of them."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from masf_jax import assimilate, scan as program
from masf_jax.dynamics import Kolmogorov, Lorenz96, MemberLayout
from masf_jax.filters import (
    ETKF,
    LETKF,
    MASF,
    EnFF,
    EnKF,
    EnKFN,
    EnSF,
    EnSRF,
    IEnKF,
    IEnSF,
    ParticleFilter,
)
from masf_jax.filters.base import EnsembleState, MemberFilter
from masf_jax.filters.rivals.ensf_lr import EnSFLR
from masf_jax.masf import ConditionalKernel, GaussianPrior, KernelPrior
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.measurements import Blur, Gaussian, Log, Measurement, Observations, Subset

N, K, KEY = 16, 2, jax.random.key(0)
jax.config.update("jax_enable_x64", True)


class Own(MemberFilter):
    """A user's filter that knows nothing of devices: members towards z, in order of their first value."""

    def init(self, key, ensemble):
        return EnsembleState(ensemble)

    def update(self, key, state, z, mask, measurement):
        order = jnp.argsort(state.ensemble[:, 0])
        pull = jax.vmap(jax.grad(lambda x: measurement.log_prob(z, x, mask)))(state.ensemble)
        return EnsembleState(state.ensemble[order] + 0.1 * pull), {}


def ring(n, operator=None):
    """A model on a ring, half of it measured; its members."""
    x = 8 + jax.random.normal(KEY, (N, n))
    operator = Subset(np.arange(0, n, 2)) if operator is None else operator
    return Lorenz96(n), Measurement(operator, Gaussian(1.0)), x


def flow(operator):
    model = Kolmogorov(16, dt=0.02, forcing_waves=2, n_inner=2, stepper="etdrk2")
    x = jax.jit(lambda keys: jax.lax.map(model.initial_state, keys))(jax.random.split(KEY, N))
    return model, Measurement(operator, Gaussian(0.3)), x


def half_of_the_flow():
    return Subset(np.arange(0, 2 * 16 * 16, 2))


def blur():
    waves = np.fft.fftfreq(16, 1 / 16)[:, None] ** 2 + np.arange(9)[None] ** 2
    return Blur(np.exp(-0.05 * waves))


def compiled(problem, layout, fused, **options):
    """The run, its compiled program, and the operations of that program, or of one where nothing is fused.

    XLA counts what is fused into several results (normal draws into slices of them) once for each.
    """
    seen, scan = [], program._scan

    def caught(*args):
        seen.append(args)
        return scan(*args)

    program._scan = caught
    try:
        run = assimilate(jax.random.key(3), *problem, layout=layout, **options)
    finally:
        program._scan = scan
    lowered = scan.lower(*seen[0])
    whole = lowered.compile()
    counted = whole.compiled if fused else lowered.lowered.compile({"xla_disable_hlo_passes": "fusion"})
    return run, whole, counted.cost_analysis()["flops"]


def numbers(leaf):
    """What a leaf of a result, a random key too, is made of."""
    key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if key else leaf, float)


def largest_message(text, n_devices):
    """Numbers of the largest array that a program gathers or sums over devices, not counting all-to-all."""
    sizes = [0]
    for shape in re.findall(r"= \w+\[([\d,]*)\]\S* (?:all-gather|all-reduce|collective-permute)\(", text):
        sizes.append(int(np.prod([int(size) for size in shape.split(",") if size] or [1])))
    return max(sizes)


def case(filter, model, measurement, x, devices, broken=False, fused=True):
    """Differences of a run on several devices from that on one, and what its program costs a device."""
    if broken:
        x = x.at[3, 5].set(1e150)  # its forecast is not finite: replaced by another member's
    truth = jnp.broadcast_to(x[0], (K, *x.shape[1:]))
    z = jax.vmap(measurement.sample, (0, None))(jax.random.split(jax.random.key(2), K), x[0])
    problem = filter, model, measurement, Observations(z, 1), x
    runs, programs, cost = [], [], []
    for layout in (MemberLayout(), MemberLayout(devices=devices)):
        run, program, flops = compiled(
            problem, layout, fused, truth=truth, save=("mean", "spread", "ensemble")
        )
        runs.append(run), programs.append(program), cost.append(flops)
    one, many = (
        (a.analysis, a.forecast, a.analysis_scores, a.forecast_scores, a.info, a.final, a.faults)
        for a in runs
    )
    close = jax.tree.map(
        lambda a, b: float(np.max(np.abs(a - b) / (1 + np.abs(a)), initial=0)),
        *(jax.tree.map(numbers, each) for each in (one, many)),
    )
    room = [program.compiled.memory_analysis().temp_size_in_bytes for program in programs]
    return {
        "difference": max(jax.tree.leaves(close)),
        "finite": bool(np.isfinite(one[0]["ensemble"]).all()),
        "flops": cost[1] / cost[0],
        "room": room[1] / room[0],
        "message": largest_message(programs[1].compiled.as_text(), len(devices)) / x.size,
        "repaired": int(runs[1].repaired.sum()),
        "devices": len(many[5].ensemble.sharding.device_set),
        "held": many[5].ensemble.addressable_shards[0].data.size / x.size,
    }


QUICK = {
    "ETKF": lambda: (ETKF(rotation=True), *ring(272)),
    "LETKF of a size that 8 does not divide": lambda: (LETKF(1.0), *ring(270)),
    "own": lambda: (Own(), *ring(40)),
}
COUNTED = {
    "MASF": lambda: (MASF(), *ring(272)),
    "MASF, localised, by lists": lambda: (MASF(GaussianPrior(radius=4.0)), *ring(1036)),
    "EnSF": lambda: (EnSF(), *ring(80)),
}
"""As QUICK, these too have their operations, room and messages counted, but compile for longer."""
ALL = (
    QUICK
    | COUNTED
    | {
        "EnKF": lambda: (EnKF(), *ring(272)),
        "EnKF-N": lambda: (EnKFN(), *ring(272)),
        "EnSRF": lambda: (EnSRF(), *ring(270)),
        "EnSRF, localised": lambda: (EnSRF(radius=4.0), *ring(270)),
        "IEnKF": lambda: (IEnKF(), *ring(272)),
        "particle filter": lambda: (ParticleFilter(), *ring(40)),
        "LETKF with a dense taper": lambda: (LETKF(8.0, rotation=True), *ring(40)),
        "MASF, localised": lambda: (MASF(GaussianPrior(radius=4.0)), *ring(48)),
        "MASF, localised, by dense weights": lambda: (MASF(GaussianPrior(radius=60.0)), *ring(520)),
        "MASF, localised, perturbed": lambda: (MASF(GaussianPrior(4.0, "perturbed")), *ring(1040)),
        "MASF, kernel": lambda: (MASF(KernelPrior()), *ring(40)),
        "MASF, nonlinear": lambda: (MASF(), *ring(40, Log())),
        "MASF, conditional": lambda: (MASF(route=ConditionalKernel()), *ring(40)),
        "EnFF": lambda: (EnFF(), *ring(40)),
        "EnFF from the last analysis": lambda: (EnFF(path="f2p"), *ring(40)),
        "EnSF-LR": lambda: (EnSFLR(), *ring(40)),
        "IEnSF": lambda: (IEnSF(n_steps=50), *ring(40)),
        "ETKF of a flow": lambda: (ETKF(), *flow(half_of_the_flow())),
        "LETKF of a flow": lambda: (LETKF(0.5), *flow(half_of_the_flow())),
        "EnSF of a blurred flow": lambda: (EnSF(), *flow(blur())),
        "MASF of a blurred flow": lambda: (MASF(), *flow(blur())),
        "amortised MASF of a flow": lambda: (AmortisedMASF(LETKF(0.5)), *flow(half_of_the_flow())),
    }
)

if __name__ == "__main__":
    counted = {"quick": QUICK, "counted": COUNTED}
    cases, n_devices = (counted[sys.argv[1]], 8) if sys.argv[1] in counted else (ALL, int(sys.argv[1]))
    names = sys.argv[2:] or list(cases)
    devices = jax.devices()[:n_devices]
    for name in names:
        found = case(*cases[name](), devices, broken=name == "ETKF", fused=name != "MASF")
        print(json.dumps({name: found}), flush=True)
