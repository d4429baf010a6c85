"""Experiments from configurations: compose, run, write results, report.

The only part of `masf_jax` that reads configuration files, writes files or imports Hydra, xarray,
matplotlib and rich; each is imported where it is used, so that `masf-jax --help` is quick.
"""
