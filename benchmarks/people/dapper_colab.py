"""colab.py with DAPPER 1.8.1: its LETKF beside its EnKF, for it has no MASF."""

import matplotlib.pyplot as plt
import numpy as np
from dapper import da_methods, mods
from dapper.mods.Lorenz96 import step, x0
from dapper.tools.localization import nd_Id_localization

measured = np.arange(0, 40, 2)
localizer = nd_Id_localization((40,), (1,), measured)
sensor = mods.Operator(**mods.partial_Id_Obs(40, measured), noise=1, localizer=localizer)
times = mods.Chronology(0.05, dko=1, Ko=299)
start = mods.with_recursion(step)(x0(40), k=1000, t=0, dt=0.05)[-1]
problem = mods.HiddenMarkovModel(
    mods.Operator(M=40, model=step, noise=0), sensor, times, mods.GaussRV(mu=start, C=1)
)
truth, values = problem.simulate()
letkf = da_methods.LETKF(N=20, loc_rad=7.0 / 1.82, infl=1.05)
for method in (letkf, da_methods.EnKF("Sqrt", N=20, infl=1.05, rot=True)):
    method.assimilate(problem, truth, values)
    rmse = method.stats.err.rms.a
    plt.plot(rmse, label=f"{type(method).__name__} {rmse[100:].mean():.2f}")
plt.legend()
plt.savefig("colab.png")
