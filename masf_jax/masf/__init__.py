"""The measurement-aware score-based filter (MASF, arXiv 2604.02889), the heart of the library.

A forecast ensemble meets a measurement z = H(x) + ε in four parts, each an object that a user may write:

    prior    what is made of the ensemble: a denoiser,      priors/        gaussian kernel network hybrid
             D(v_t) = E[v_0 | v_t]
    process  v_t, the state at t = 0, z at t = 1            ../diffusion/  VP MeasurementAware
    sampler  runs the process backwards from z              ../diffusion/  Bridge Guided
    route    how z enters: as the end of the process, at    routes/        linear linearized
             tangents, or by what has seen z itself                        conditional dual_head

    analysis.py   one analysis: members and z in, members out
    filter.py     MASF, the filter: inflate, normalise, analyse, relax
    paper.py      the algorithm as published
    amortised/    AmortisedMASF: a network trained beforehand for every forecast

>>> filter = MASF(GaussianPrior(radius=7.28, rotation=True), sampler=Bridge(n_steps=2))
>>> run = masf_jax.assimilate(key, filter, model, sensor, observations, ensemble)
"""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from ..diffusion import (
        VP as VP,
        Bridge as Bridge,
        Guided as Guided,
        MeasurementAware as MeasurementAware,
        ProcessFamily as ProcessFamily,
        Sampler as Sampler,
    )
    from .amortised.filter import AmortisedMASF as AmortisedMASF
    from .analysis import masf_analysis as masf_analysis
    from .filter import MASF as MASF
    from .former import (
        ConditionalFit as ConditionalFit,
        DenoiserFit as DenoiserFit,
        GaussianFit as GaussianFit,
        KernelFit as KernelFit,
        Linearization as Linearization,
    )
    from .paper import paper_masf as paper_masf
    from .priors import (
        GaussianPrior as GaussianPrior,
        HybridPrior as HybridPrior,
        KernelPrior as KernelPrior,
        NetworkPrior as NetworkPrior,
        Prior as Prior,
    )
    from .routes import (
        Automatic as Automatic,
        ConditionalKernel as ConditionalKernel,
        ConditionalNetwork as ConditionalNetwork,
        DualHead as DualHead,
        Linear as Linear,
        Linearized as Linearized,
        Route as Route,
    )

_DIFFUSION = ("VP", "Bridge", "Guided", "MeasurementAware", "ProcessFamily", "Sampler")
_PRIORS = ("GaussianPrior", "HybridPrior", "KernelPrior", "NetworkPrior", "Prior")
_ROUTES = (
    "Automatic",
    "ConditionalKernel",
    "ConditionalNetwork",
    "DualHead",
    "Linear",
    "Linearized",
    "Route",
)
_FORMER = ("ConditionalFit", "DenoiserFit", "GaussianFit", "KernelFit", "Linearization")

__getattr__, __dir__ = lazy(
    __name__,
    {
        "MASF": ".filter",
        "AmortisedMASF": ".amortised.filter",
        "masf_analysis": ".analysis",
        "paper_masf": ".paper",
        **dict.fromkeys(_DIFFUSION, "..diffusion"),
        **dict.fromkeys(_PRIORS, ".priors"),
        **dict.fromkeys(_ROUTES, ".routes"),
        **dict.fromkeys(_FORMER, ".former"),
    },
    ("amortised", "priors", "routes"),
)
