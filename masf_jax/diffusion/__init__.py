"""Diffusion processes from a state to its measurement, and samplers of what lies between."""

from .conditional import (
    LiftedProcess as LiftedProcess,
    conditional_bridge as conditional_bridge,
    lifted_process as lifted_process,
    towards_noise as towards_noise,
)
from .dual_head import guided_dual_head as guided_dual_head
from .linear_schedule import LinearSchedule as LinearSchedule
from .measurement_aware import (
    MeasurementAware as MeasurementAware,
    MeasurementAwareProcess as MeasurementAwareProcess,
    measurement_aware as measurement_aware,
)
from .process import (
    Frame as Frame,
    Process as Process,
    ProcessFamily as ProcessFamily,
    Transition as Transition,
)
from .samplers import (
    Bridge as Bridge,
    Guided as Guided,
    Sampler as Sampler,
    bridge as bridge,
    guided as guided,
)
from .schedules import cosine_schedule as cosine_schedule, time_grid as time_grid
from .vp_bridge import VP as VP, VPBridge as VPBridge, vp_bridge as vp_bridge
