"""student.py with DAPPER 1.8.1."""

import numpy as np
from canal_numpy import DT, N, any_waves, step
from dapper import da_methods, mods
from dapper.tools.localization import localization_setup, pairwise_distances
from dapper.tools.randvars import RV

rng = np.random.default_rng(0)
gauges = np.arange(0, N, 5)
places = np.concatenate([np.arange(N), np.arange(N)])[:, None]  # of level and current
apart = pairwise_distances(places[gauges], places, domain=(N,))  # grid points of 2 km
localizer = localization_setup(lambda: apart, [np.array([i]) for i in range(2 * N)])
sea = mods.Operator(M=2 * N, model=step, noise=0)
sensor = mods.Operator(**mods.partial_Id_Obs(2 * N, gauges), noise=0.05**2, localizer=localizer)
times = mods.Chronology(DT, dko=10, Ko=35)
first = RV(2 * N, func=lambda members: any_waves(rng, members))
problem = mods.HiddenMarkovModel(sea, sensor, times, first)
truth, values = problem.simulate()
method = da_methods.LETKF(N=20, loc_rad=7.5 / 1.82, infl=1.05)
method.assimilate(problem, truth, values)
error = method.stats.mu.a - truth[times.kko]
print(f"current, RMSE of the last two hours: {np.sqrt(np.mean(error[-12:, N:] ** 2)):.3f} m/s")
