"""The flow of tests/flows.py."""

from flows import flow

__all__ = ["flow"]
