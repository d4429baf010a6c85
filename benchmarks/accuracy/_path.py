"""Puts benchmarks/ on the path, so that a script of this folder finds `suite`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
