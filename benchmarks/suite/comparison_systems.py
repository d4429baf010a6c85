"""Systems, filters and what is tuned of `comparison_table.py`."""

from __future__ import annotations

import dataclasses

INFLATION = "filter.inflation=interval(1.0,1.2)"
RTPS = "filter.rtps=interval(0.0,1.0)"
UNITS = "filter.normalization=raw,history"
KERNELS = ("filter.h=tag(log,interval(0.03,0.7))", "filter.h_y=tag(log,interval(0.1,2))")
TRAINING = "filter.training.steps=30,100,300"  # in every cycle

FILTERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "etkf": (("filter=etkf",), (INFLATION,)),
    "letkf": (("filter=letkf", "filter.rotation=true"), (INFLATION,)),
    "enkf": (("filter=enkf",), ("filter.inflation=interval(1.0,1.4)",)),
    "ensrf": (("filter=ensrf",), (INFLATION,)),
    "enkf_n": (("filter=enkf_n",), ("filter.certainty=tag(log,interval(0.2,5))",)),
    "ienkf": (("filter=ienkf",), (INFLATION,)),
    "particle": (
        ("filter=particle",),
        ("filter.threshold=interval(0.1,0.9)", "filter.regularization=interval(0.2,1.5)"),
    ),
    "masf": (("filter=masf",), (INFLATION,)),
    "masf_kernel": (("filter=masf_kernel",), (INFLATION, "filter.bandwidth=interval(0.1,1.0)")),
    "masf_amortised": (("filter=masf_amortised",), ("filter.calibration=interval(0.8,1.3)",)),
    "ensf": (("filter=ensf",), (RTPS, "filter.batch_size=1,null", UNITS)),
    "ensf_lr": (("filter=ensf_lr",), (RTPS, "filter.batch_size=1,null", UNITS)),
    "iensf": (
        ("filter=iensf", "filter.n_steps=100", "filter.iterations=3"),
        (INFLATION, RTPS, "filter.prior=diagonal,ensemble"),
    ),
    "enff": (
        ("filter=enff",),
        (
            "filter.guidance=tag(log,interval(0.01,10))",
            "filter.sigma_min=tag(log,interval(0.02,1))",
            "filter.path=ot,f2p",
            UNITS,
        ),
    ),
    "conditional_diffusion": (
        ("filter=conditional_diffusion", "filter.rule=given"),
        (
            INFLATION,
            "filter.h=tag(log,interval(0.05,1))",
            "filter.h_y=tag(log,interval(0.05,2))",
        ),
    ),
    "conditional_diffusion_direct": (  # the same law, without the solver
        ("filter=conditional_diffusion", "filter.rule=given", "filter.flow=false"),
        KERNELS,
    ),
    "score_filter": (("filter=score_filter",), (INFLATION, RTPS, TRAINING)),
    "ssls": (("filter=ssls",), (INFLATION, "filter.sigma=interval(0.05,0.5)", TRAINING)),
}
"""By label: what is set, and what is tuned where a system does not say otherwise."""

LOCAL = ("letkf", "ensrf", "masf")
BY_PAIRS = ("enkf", "ensrf", "particle", "conditional_diffusion_direct")
NO_CHECKPOINT = {"masf_amortised": "no trained network comes with the package for this system"}
FEW_VARIABLES = {
    "masf_kernel": "for few variables",
    "particle": "for few variables",
    "conditional_diffusion": "for few variables: lost on every seed of Lorenz-96 and KS in a first tuning",
}


@dataclasses.dataclass(frozen=True)
class System:
    """An experiment; cycles and tuning: all cycles of a run, and those of them that are not scored.

    radii: tried by the localised filters, beside the inflation.
    """

    title: str
    overrides: tuple[str, ...]
    members: int
    cycles: tuple[int, int]
    tuning: tuple[int, int]
    trials: int = 12
    at_once: int = 5
    radii: tuple[str, ...] = ()
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    only: tuple[str, ...] = tuple(name for name in FILTERS if name != "conditional_diffusion_direct")

    @property
    def filters(self) -> list[str]:
        return [label for label in self.only if label not in self.left_out]

    @property
    def space(self) -> dict[str, tuple[str, ...]]:
        """Of the filters that can be localised, and of kernels beside other filters of many members."""
        kernels = {"conditional_diffusion": KERNELS} if "conditional_diffusion_direct" in self.only else {}
        if not self.radii:
            return kernels | {"masf": ("filter.radius=inf", INFLATION)}
        return kernels | {label: (INFLATION, f"filter.radius={','.join(self.radii)}") for label in LOCAL}


_LORENZ96 = {"cycles": (250, 50), "tuning": (250, 50), "members": 20}

SYSTEMS: dict[str, System] = {
    "lorenz63": System(
        "all three variables measured each .25, variance 2",
        ("experiment=lorenz63_sakov2012",),
        members=50,
        cycles=(250, 50),
        tuning=(250, 50),
        left_out={
            "letkf": "three variables: no localisation, etkf is the same",
            "ensf_lr": "all is measured: ensf is the same",
        },
    ),
    "lorenz96": System(
        "40 variables, all measured each .05, variance 1",
        ("experiment=lorenz96_sakov2008",),
        radii=("4", "7", "12"),
        left_out=NO_CHECKPOINT | FEW_VARIABLES | {"ensf_lr": "all is measured: ensf is the same"},
        **_LORENZ96,
    ),
    "lorenz96_half": System(
        "40 variables, every second measured each .2, variance 1",
        ("experiment=lorenz96_partial",),
        radii=("4", "6.5", "10"),
        left_out=FEW_VARIABLES,
        **_LORENZ96,
    ),
    "lorenz96_arctan": System(
        "40 variables, arctan of all measured each .1, noise .05",
        ("experiment=lorenz96_arctan",),
        radii=("4", "7", "14"),
        left_out=NO_CHECKPOINT | FEW_VARIABLES | {"ensf_lr": "all is measured: ensf is the same"},
        **_LORENZ96,
    ),
    "ks": System(
        "Kuramoto-Sivashinsky, 128 points on 32π, all measured each 1, variance 1",
        ("experiment=ks_bocquet2019",),
        members=20,
        cycles=(150, 50),
        tuning=(150, 50),
        radii=("25", "50", "100"),
        left_out=FEW_VARIABLES | {"ensf_lr": "all is measured: ensf is the same"},
    ),
    "kolmogorov": System(
        "Kolmogorov flow 64², velocity at every 10th point each way each 2, noise .1",
        ("experiment=kolmogorov_grid",),
        members=10,
        cycles=(25, 5),
        tuning=(6, 2),
        at_once=1,
        radii=("3.5", "5", "7"),
        left_out=FEW_VARIABLES,
    ),
}


def _small_lorenz96(n: int, *measurement: str) -> tuple[str, ...]:
    return (
        "dynamics=lorenz96", f"dynamics.n={n}", "dynamics.dt=0.05", "steps_per_cycle=2", "initial.spread=1",
        *measurement,
    )  # fmt: skip


_PAIRS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "lorenz63_first": (
        "Lorenz-63, the first variable measured each .1, variance 1",
        (
            "dynamics=lorenz63", "dynamics.dt=0.01", "steps_per_cycle=10", "initial.spread=1",
            "measurement=subset", "measurement.indices=[0]",
        ),
        (),
    ),
    "lorenz96_10": (
        "Lorenz-96, 10 variables, every second measured each .1, variance 1",
        _small_lorenz96(10, "measurement=every_second"),
        ("2", "4", "inf"),
    ),
    "lorenz96_10_arctan": (
        "Lorenz-96, 10 variables, arctan of all measured each .1, noise .1",
        _small_lorenz96(10, "measurement=arctan", "measurement.noise.std=0.1"),
        ("2", "4", "inf"),
    ),
    "lorenz96_20": (
        "Lorenz-96, 20 variables, every second measured each .1, variance 1",
        _small_lorenz96(20, "measurement=every_second"),
        ("3", "6", "inf"),
    ),
}  # fmt: skip
"""Closed-form conditional diffusion beside Kalman and particle filters: title, overrides, radii."""

for _name, (_title, _overrides, _radii) in _PAIRS.items():
    for _members in (250, 500, 1000):
        SYSTEMS[f"{_name}_{_members}"] = System(
            _title, _overrides, _members, (220, 20), (60, 10), trials=24, at_once=1, radii=_radii,
            only=BY_PAIRS if _members > 250 else (*BY_PAIRS, "conditional_diffusion"),
        )  # fmt: skip
