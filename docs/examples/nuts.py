"""Draws of the posterior of unknown numbers, by NUTS (BlackJAX) on a filter's likelihood.

    pip install masf-jax[examples]
    python nuts.py nile               # both levels of noise of the Nile; Kalman filter: an exact likelihood
    python nuts.py lorenz96 [SEED …]  # the forcing, true 8; ETKF of 20 members

Beside it the maximum and the standard deviation that the `Gradient` engine finds.
"""

import sys

import blackjax
import jax
import jax.numpy as jnp

from masf_jax import simulate
from masf_jax.dynamics import Linear, Lorenz96, ModelError
from masf_jax.ensemble import Inflation
from masf_jax.estimation import Gradient, LogNormal, Normal, Problem, Unknowns, estimate, log_likelihood
from masf_jax.filters import ETKF, KalmanFilter
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations

# 10⁸ m³ in 1871 … 1970 (Cobb 1978; Durbin & Koopman 2012)
NILE = """1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100
1210 1150 1250 1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456 824 702 1120
1100 832 764 821 768 845 864 862 698 845 744 796 1040 759 781 865 845 944 984 897 822 1010 771 676 649 846 812
742 801 1040 860 874 848 890 744 749 838 1050 918 986 797 923 975 815 1020 906 901 1170 912 746 919 718
714 740"""


def nile(seed):
    values = jnp.asarray([[float(value)] for value in NILE.split()])
    problem = Problem(
        ModelError(Linear([[1.0]]), 40.0),
        Measurement(Identity(), Gaussian(120.0)),
        KalmanFilter(mean=[1120.0], covariance=[[1e7]]),
    )
    unknown = {"measurement.noise.std": LogNormal(120.0, 0.5), "dynamics.std": LogNormal(40.0, 1.0)}
    return problem, unknown, Observations(values, jnp.arange(100)), jnp.asarray([[-1.0], [1.0]])


def lorenz96(seed):
    model, sensor = Lorenz96(10, forcing=5.0), Measurement(Identity(), Gaussian(1.0))
    twin = simulate(jax.random.key(seed), Lorenz96(10, forcing=8.0), sensor, 50)
    members = twin.truth[0] + jax.random.normal(jax.random.key(1000 + seed), (20, 10))
    problem = Problem(model, sensor, ETKF(Inflation(multiplicative=1.01)))
    return problem, {"dynamics.forcing": Normal(5.0, 1.0)}, twin.observations, members


def draws(key, problem, unknown, observations, members, start, n=500, warmup=200):
    """n draws by name, and how many leapfrogs went wrong, from the prior's coordinates `start` on."""
    unknowns = Unknowns.of(problem, unknown)  # as one vector u, a priori N(0, I): one step size suits all

    def log_density(u):
        now = unknowns.put(problem, u)
        parts = now.filter, now.dynamics, now.measurement
        found = log_likelihood(jax.random.key(0), *parts, observations, members, checkpoint=True)
        return found + unknowns.log_prior(u)

    @jax.jit
    def sample(key, start):
        key_adapt, key_run = jax.random.split(key)
        adaptation = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, settings), _ = adaptation.run(key_adapt, start, num_steps=warmup)
        step = blackjax.nuts(log_density, **settings).step

        def one(state, key):
            state, info = step(key, state)
            return state, (state.position, info.is_divergent)

        return jax.lax.scan(one, state, jax.random.split(key_run, n))[1]

    u, wrong = sample(key, start)
    return jax.vmap(unknowns.values)(u), int(wrong.sum())


def both(problem, unknown, observations, members, **settings):
    """The Gradient engine's estimate, and draws that begin at it."""
    arguments = problem.filter, problem.dynamics, problem.measurement, observations, members
    found = estimate(jax.random.key(0), *arguments, unknown=unknown, engine=Gradient())
    drawn, wrong = draws(jax.random.key(1), problem, unknown, observations, members, found.u, **settings)
    return found, drawn, wrong


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    case = {"nile": nile, "lorenz96": lorenz96}[sys.argv[1]]
    for seed in map(int, sys.argv[2:] or ["0"]):
        found, drawn, wrong = both(*case(seed))
        for name, values in drawn.items():
            maximum = f"{found.mean[name]:.3f} ± {found.std[name]:.3f}"
            print(f"{name}, seed {seed}: Gradient {maximum}, NUTS {values.mean():.3f} ± {values.std():.3f}")
        if wrong:
            print(f"{wrong} divergent steps: raise target_acceptance_rate of the adaptation")
