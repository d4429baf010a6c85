"""Filters: one a file, all over the same dynamics and measurements."""

from .base import (
    EnsembleFilter as EnsembleFilter,
    EnsembleState as EnsembleState,
    Filter as Filter,
    GaussianState as GaussianState,
)
from .baselines import (
    Climatology as Climatology,
    OptimalInterpolation as OptimalInterpolation,
    ThreeDVar as ThreeDVar,
)
from .conditional import ConditionalFit as ConditionalFit, ConditionalKernel as ConditionalKernel
from .denoiser_fit import DenoiserFit as DenoiserFit, GaussianFit as GaussianFit, KernelFit as KernelFit
from .enff import EnFF as EnFF
from .enkf import EnKF as EnKF
from .enkf_n import EnKFN as EnKFN
from .ensf import EnSF as EnSF, EnSFSampler as EnSFSampler
from .ensf_lr import EnSFLR as EnSFLR
from .ensrf import EnSRF as EnSRF
from .etkf import ETKF as ETKF
from .ienkf import IEnKF as IEnKF
from .iensf import IEnSF as IEnSF
from .kalman import KalmanFilter as KalmanFilter
from .letkf import LETKF as LETKF
from .linearization import Linearization as Linearization
from .masf import MASF as MASF
from .particle import ParticleFilter as ParticleFilter
