"""What the parameters of objects within filters are called as keys, by class."""

from __future__ import annotations

from ..schema import Role

__all__ = ["ROLES"]

_MASF, _DIFFUSION, _HERE = "masf_jax.masf", "masf_jax.diffusion", __package__

ROLES = {
    "MASF": Role({"climatology": "pretraining.states"}),
    "Prior": Role(
        choices={
            "gaussian": f"{_MASF}.priors.gaussian:GaussianPrior",
            "kernel": f"{_MASF}.priors.kernel:KernelPrior",
            "hybrid": f"{_HERE}.networks:hybrid",
            "network": f"{_HERE}.networks:network",
        }
    ),
    "ProcessFamily": Role(
        choices={
            "vp": f"{_DIFFUSION}.vp_bridge:VP",
            "measurement_aware": f"{_DIFFUSION}.measurement_aware:MeasurementAware",
        }
    ),
    "Sampler": Role(
        choices={"bridge": f"{_DIFFUSION}.samplers:Bridge", "guided": f"{_DIFFUSION}.samplers:Guided"}
    ),
    "Route": Role(
        choices={
            "auto": f"{_HERE}.masf:automatic",
            "linear": f"{_MASF}.routes.linear:Linear",
            "linearized": f"{_HERE}.masf:linearized",
            "conditional_kernel": f"{_MASF}.routes.conditional:ConditionalKernel",
            "conditional_network": f"{_HERE}.networks:conditional_network",
        }
    ),
    "Linearized": Role(section=True),
    "Inflation": Role({"multiplicative": "inflation", "prior": "prior_inflation"}),
    "Normalization": Role({"kind": "normalization"}, null="kind"),
    "ScoreNetwork": Role({"architecture": "network", "training": "training", "restart": "training.restart"}),
    "Architecture": Role(hidden=("noise_map", "preconditioning", "variance_head")),
    "FitConfig": Role(hidden=("validation_fraction", "validation_draws", "validate_every", "patience")),
    "Kolmogorov": Role(hidden=("cfl",)),  # networks are kept for a model by all its keys, none of them this
    "KalmanFilter": Role(hidden=("mean", "covariance")),
}
