"""Measurement operators and noise laws, as pytrees."""

from typing import TYPE_CHECKING

from .averages import AreaAverage as AreaAverage, LineAverage as LineAverage
from .base import Compose as Compose, Operator as Operator
from .coarsen import Coarsen as Coarsen
from .flow import Vorticity as Vorticity
from .fourier import Blur as Blur
from .function import Function as Function
from .linear import Linear as Linear
from .measurement import Measurement as Measurement, Observations as Observations
from .multiplicative import Multiplicative as Multiplicative
from .noise import (
    CorrelatedGaussian as CorrelatedGaussian,
    Gaussian as Gaussian,
    Laplace as Laplace,
    Noise as Noise,
    Scaled as Scaled,
    StudentT as StudentT,
)
from .pointwise import (
    Pointwise as Pointwise,
    Speed as Speed,
    absolute as absolute,
    arctan as arctan,
    sigmoid as sigmoid,
    square as square,
    tanh as tanh,
)
from .selection import (
    Identity as Identity,
    Subset as Subset,
    center_hole as center_hole,
    grid_stride as grid_stride,
    moving_window as moving_window,
    random_points as random_points,
)
from .sensors import Censored as Censored, Log as Log, Quantised as Quantised
from .several import Concatenate as Concatenate, JointNoise as JointNoise, join as join
from .stations import Stations as Stations
from .thinning import Superobs as Superobs, Thinned as Thinned, superob as superob, thin as thin
from .tracking import RangeBearing as RangeBearing
from .withholding import withhold as withhold

if not TYPE_CHECKING:  # which knows what there is
    from .._lazy import unknown

    __getattr__ = unknown(__name__)
