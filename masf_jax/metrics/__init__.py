"""Scores: pure functions, and the set `assimilate` computes each cycle."""

from typing import TYPE_CHECKING

from .by_variable import rmse_by_variable as rmse_by_variable, spread_by_variable as spread_by_variable
from .cycle import DEFAULT_SCORES as DEFAULT_SCORES, SCORES as SCORES
from .desroziers import Desroziers as Desroziers, desroziers as desroziers
from .fields import (
    critical_success_index as critical_success_index,
    structural_similarity as structural_similarity,
)
from .ranks import rank_counts as rank_counts
from .scores import (
    crps_ensemble as crps_ensemble,
    crps_gaussian as crps_gaussian,
    energy_score as energy_score,
    rmse as rmse,
    root_mean_variance as root_mean_variance,
    sliced_wasserstein as sliced_wasserstein,
    spread_skill_ratio as spread_skill_ratio,
    wasserstein_1d as wasserstein_1d,
)
from .summary import (
    mean_and_standard_error as mean_and_standard_error,
    paired_difference as paired_difference,
    time_average as time_average,
)

if not TYPE_CHECKING:  # which knows what there is
    from .._lazy import unknown

    __getattr__ = unknown(__name__)
