"""1000 cycles of DAPPER's sakov2008, as its own example scripts run one: python dapper_run.py NAME."""

import sys

import dapper
from dapper import da_methods
from dapper.mods.Lorenz96.sakov2008 import HMM
from dapper.tools.seeding import set_seed

dapper.rc.liveplotting = False
METHODS = {
    "ETKF N=24": da_methods.EnKF("Sqrt", N=24, infl=1.02, rot=True),
    "LETKF N=7": da_methods.LETKF(N=7, infl=1.04, rot=True, loc_rad=4),
    "LETKF N=20": da_methods.LETKF(N=20, infl=1.02, rot=True, loc_rad=4),
}

set_seed(3000)
HMM.tseq.Ko = 999
HMM.tseq.BurnIn = 5.0
xp = METHODS[sys.argv[1]]
truth, observations = HMM.simulate()
xp.assimilate(HMM, truth, observations)
xp.stats.average_in_time()
print(sys.argv[1], len(observations), xp.avrgs.tabulate(["rmse.a", "rmv.a"]))
