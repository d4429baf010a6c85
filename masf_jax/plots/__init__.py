"""Figures of results: each takes a dataset of `to_xarray` or of a result file, and gives a matplotlib figure.

Figures are 84 mm wide and readable at 80 mm; colours are those of Okabe and Ito.
"""

from .._lazy import lazy

__getattr__, __dir__ = lazy(
    __name__,
    {
        "MissingError": ".style",
        "animation": ".frames",
        "comparison": ".bars",
        "error_spread": ".scores",
        "estimates": ".unknowns",
        "hovmoeller": ".rings",
        "innovations": ".scores",
        "lead_times": ".leads",
        "rank_histogram": ".ranks",
        "reliability": ".probabilities",
        "series": ".components",
        "spectra": ".energy",
        "spread_skill": ".skill",
        "states": ".automatic",
        "vorticity": ".flow",
    },
)
