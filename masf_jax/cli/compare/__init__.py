"""Several filters, seeds or values on the same problems: `compare`, `tune`, sweeps."""
