"""`masf-jax run` and `train`: from settings to results in files."""
