"""The engineer's model in NumPy: levels of two tanks, (members, 2), ten minutes on."""

import numpy as np


def step(states, *_):
    upper, lower = states[..., 0], states[..., 1]
    return states + np.stack([0.05 - 0.04 * upper, 0.04 * upper - 0.05 * lower], -1)
