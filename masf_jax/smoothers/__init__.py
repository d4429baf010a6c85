"""Smoothers: methods that estimate a whole trajectory from all its measurements."""

from .enks import Smoothing as Smoothing, enks as enks
from .four_d_var import FourDVar as FourDVar, Variational as Variational
