"""Kalman-type filters, one a file: exact where all is linear and Gaussian."""
