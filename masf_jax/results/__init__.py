"""What runs leave, as datasets of xarray with the names of the CF conventions, and as NetCDF files."""

from .._lazy import lazy

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Given": ".given",
        "comparison": ".averages",
        "differences": ".averages",
        "dataset": ".datasets",
        "to_netcdf": ".datasets",
    },
)
