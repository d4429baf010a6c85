"""Real observations from files: CSV, NetCDF and zarr, with dates, stations, gaps (docs/observations.md)."""

from .._lazy import lazy

__getattr__, __dir__ = lazy(__name__, {"FileError": ".errors", "FromFile": ".records", "read": ".records"})
