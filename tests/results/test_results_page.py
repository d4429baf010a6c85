"""The page on results says what works: its blocks run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not part of the installed package")
def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for number, block in enumerate(blocks):
            exec(compile(block, f"{PAGE.name}, block {number}", "exec", dont_inherit=True), names)
    assert float(names["data"]["rmse_analysis"][40:].mean()) < 1.5
    assert (tmp_path / "error_spread.png").stat().st_size > 10_000
    assert dict(names["averages"].sizes) == {"filter": 2, "seed": 3}
