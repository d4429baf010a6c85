"""What the parameters of objects within filters are called as keys, by class."""

from __future__ import annotations

from ..schema import Role

__all__ = ["ROLES"]

ROLES = {
    "Inflation": Role({"multiplicative": "inflation", "prior": "prior_inflation"}),
    "Normalization": Role({"kind": "normalization"}, null="kind"),
    "ScoreNetwork": Role({"architecture": "network", "training": "training", "restart": "training.restart"}),
    "Architecture": Role(hidden=("noise_map", "preconditioning", "variance_head")),
    "FitConfig": Role(
        hidden=("validation_fraction", "validation_draws", "validate_every", "patience"),
    ),
    "Kolmogorov": Role(
        hidden=("cfl",)
    ),  # networks are kept for a model by all its keys, which had not this one
    "KalmanFilter": Role(hidden=("mean", "covariance")),
}
