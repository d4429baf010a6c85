"""The page on extensions says what works: its blocks run, one after the other."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not part of the installed package")
def test_every_block_runs(monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    module = types.ModuleType("extending")
    monkeypatch.setitem(sys.modules, "extending", module)
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec", dont_inherit=True), vars(module))
