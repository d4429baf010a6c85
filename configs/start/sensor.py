"""The sensor: what is measured of one state. Its noise is in run.yaml (measurement.noise)."""

import numpy as np

from masf_jax import measurements


def pairs(x):
    """The mean of each two neighbours."""
    return (x[::2] + x[1::2]) / 2


sensor = measurements.Function(pairs, positions=np.arange(0.5, 40, 2))  # between the two
