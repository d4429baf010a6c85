"""Smoothers: methods that estimate a whole trajectory from all its measurements."""

from typing import TYPE_CHECKING

from .enks import enks as enks
from .four_d_var import FourDVar as FourDVar, Variational as Variational
from .guidance import MMPS as MMPS, Guidance as Guidance, InflatedNoise as InflatedNoise
from .ienks import ienks as ienks
from .rts import rts as rts
from .sda import SDA as SDA
from .smoothing import Smoothing as Smoothing
from .trajectories import from_draws as from_draws
from .weak_four_d_var import WeakFourDVar as WeakFourDVar, WeakVariational as WeakVariational
from .windows import Reshaped as Reshaped, TrajectoryDenoiser as TrajectoryDenoiser

if not TYPE_CHECKING:  # which knows what there is
    from .._lazy import unknown

    __getattr__ = unknown(__name__)
