"""What tests of the command line share."""

from __future__ import annotations

import os

from flows import flow

__all__ = ["flow"]

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # no command leaves anything in the home folder
