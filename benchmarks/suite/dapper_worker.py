"""Runs DAPPER in its own Python and answers requests, one JSON object a line (see against_dapper.py).

Facts about DAPPER 1.8.1 that this relies on: `Stats.assess` does all statistics of a stage; called
without a stage after an analysis it computes the same statistics twice, as "a" (analysis) and as "i"
(integrational, a buffer of length one by default). Statistics modes here:

    all   as shipped (forecast, analysis, and the analysis once more)
    once  the repeated computation left out
    off   `Stats.assess` replaced by a function that does nothing
"""

import copy
import json
import sys
import time

answers = sys.stdout
sys.stdout = sys.stderr  # DAPPER prints

import dapper  # noqa: E402
import numpy as np  # noqa: E402
from dapper import da_methods, stats  # noqa: E402
from dapper.da_methods import ensemble as ensemble_methods  # noqa: E402
from dapper.mods.Lorenz96.sakov2008 import HMM as sakov2008  # noqa: E402
from dapper.tools import randvars, seeding  # noqa: E402
from dapper.tools.chronos import Chronology  # noqa: E402

dapper.rc.liveplotting = False
times = []


def clock(ticker, *unused, **options):
    """In place of DAPPER's progress bar: notes the CPU time at which each cycle begins."""
    for tick in ticker:
        times.append(time.process_time())
        yield tick
    times.append(time.process_time())


ensemble_methods.progbar = clock
assess = stats.Stats.assess


def assess_once(self, k, ko=None, fais=None, **given):
    """DAPPER's own statistics, of the analysis as "a" only."""
    return assess(self, k, ko, "a" if fais is None and ko is not None else fais, **given)


MODES = {"all": assess, "once": assess_once, "off": lambda self, *args, **kwargs: None}


def method(name, n_members, inflation):
    if name == "ETKF":
        return da_methods.EnKF("Sqrt", N=n_members, infl=inflation, rot=True)
    return da_methods.LETKF(N=n_members, infl=inflation, rot=True, loc_rad=4)


def run(request):
    """CPU seconds per cycle in the fastest block of cycles, and the RMSE where statistics are kept."""
    data = np.load(request["data"])
    n_cycles = request["cycles"]
    hmm = copy.copy(sakov2008)
    hmm.tseq = Chronology(0.05, dko=1, Ko=n_cycles - 1, BurnIn=0)
    hmm.X0 = randvars.RV(M=40, func=lambda n: data["ensemble"][:n].astype(float).copy())
    truth = np.concatenate([data["start"][None], data["truth"][:n_cycles]]).astype(float)
    seeding.set_seed(3000)
    stats.Stats.assess = MODES[request["mode"]]
    xp = method(request["name"], request["n_members"], request["inflation"])
    times.clear()
    xp.assimilate(hmm, truth, data["observations"][:n_cycles].astype(float))
    block = min(request["block"], n_cycles)
    starts = range(0, n_cycles - block + 1, block)
    out = {"seconds": min(times[i + block] - times[i] for i in starts) / block}
    if request["mode"] != "off":
        kept = slice(request["burn_in"], None)
        out["rmse"] = float(xp.stats.err.rms.a[kept].mean())
        out["spread"] = float(xp.stats.spread.rms.a[kept].mean())
        out["crps"] = float(xp.stats.crps.m.a[kept].mean())
    return out


def check(request):
    """DAPPER's statistics of a given ensemble and truth."""
    data = np.load(request["data"])
    ensemble, truth = data["ensemble"].astype(float), data["truth"][0].astype(float)
    xp = method("ETKF", len(ensemble), 1.0)
    kept = stats.Stats(xp, sakov2008, np.stack([truth, truth]), np.zeros((1, 40)))
    now = stats.DotDict()
    kept.assess_ens(now, truth, ensemble, None)
    kept.derivative_stats(now)
    return {name: np.asarray(now[name]).tolist() for name in now}


for line in sys.stdin:
    request = json.loads(line)
    answer = {"check": check, "run": run}[request["do"]](request)
    print(json.dumps(answer), file=answers, flush=True)
