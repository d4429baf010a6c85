"""Filters: one a file, all over the same dynamics and measurements."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from ..masf import (
        MASF as MASF,
        ConditionalFit as ConditionalFit,
        ConditionalKernel as ConditionalKernel,
        DenoiserFit as DenoiserFit,
        GaussianFit as GaussianFit,
        KernelFit as KernelFit,
        Linearization as Linearization,
    )
    from .adaptive_noise import AdaptiveNoise as AdaptiveNoise
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
    from .faults import Fault as Fault, FaultPolicy as FaultPolicy
    from .function import Function as Function
    from .gate import Gate as Gate
    from .kalman.enkf import EnKF as EnKF
    from .kalman.enkf_n import EnKFN as EnKFN
    from .kalman.ensrf import EnSRF as EnSRF
    from .kalman.etkf import ETKF as ETKF
    from .kalman.exact import KalmanFilter as KalmanFilter
    from .kalman.ienkf import IEnKF as IEnKF
    from .kalman.letkf import LETKF as LETKF
    from .particle import ParticleFilter as ParticleFilter
    from .rivals.enff import EnFF as EnFF
    from .rivals.ensf import EnSF as EnSF, EnSFSampler as EnSFSampler
    from .rivals.ensf_lr import EnSFLR as EnSFLR
    from .rivals.iensf import IEnSF as IEnSF

__getattr__, __dir__ = lazy(
    __name__,
    {
        "AdaptiveNoise": ".adaptive_noise",
        "EnsembleFilter": ".base",
        "EnsembleState": ".base",
        "Filter": ".base",
        "GaussianState": ".base",
        "Fault": ".faults",
        "FaultPolicy": ".faults",
        "Climatology": ".baselines",
        "OptimalInterpolation": ".baselines",
        "ThreeDVar": ".baselines",
        "Function": ".function",
        "Gate": ".gate",
        "EnKF": ".kalman.enkf",
        "EnKFN": ".kalman.enkf_n",
        "EnSRF": ".kalman.ensrf",
        "ETKF": ".kalman.etkf",
        "KalmanFilter": ".kalman.exact",
        "IEnKF": ".kalman.ienkf",
        "LETKF": ".kalman.letkf",
        "ParticleFilter": ".particle",
        "EnFF": ".rivals.enff",
        "EnSF": ".rivals.ensf",
        "EnSFSampler": ".rivals.ensf",
        "EnSFLR": ".rivals.ensf_lr",
        "IEnSF": ".rivals.iensf",
        "ConditionalDiffusion": ".rivals.conditional_diffusion",
        "ScoreFilter": ".rivals.score_filter",
        "SSLS": ".rivals.ssls",
        "MASF": "..masf",
        "AmortisedMASF": "..masf",
        "ConditionalFit": "..masf",
        "ConditionalKernel": "..masf",
        "DenoiserFit": "..masf",
        "GaussianFit": "..masf",
        "KernelFit": "..masf",
        "Linearization": "..masf",
    },
)
