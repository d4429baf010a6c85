"""What a run was given, kept beside its result: without it a result has no times, places, or truth."""

from __future__ import annotations

import equinox as eqx

from ..dynamics.base import Dynamics
from ..measurements.measurement import Measurement
from ..record import Stored

__all__ = ["Given"]


class Given(eqx.Module):
    """Model, sensor, and by cycle along axis 0 what was measured.

    observation: (K, *z), anything where nothing was measured; observation_mask: (K, *z) booleans;
    truth: (K, *state), None where it is not known. These are the caller's arrays, not copies.
    """

    dynamics: Dynamics
    measurement: Measurement
    observation: Stored
    observation_mask: Stored
    truth: Stored | None = None
