"""docs/leaderboard.md is what its script makes of the committed results."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "leaderboard.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not part of the installed package")


def test_the_page_is_the_script_s():
    script = runpy.run_path(str(ROOT / "benchmarks" / "suite" / "leaderboard.py"))
    assert PAGE.read_text(encoding="utf-8") == script["page"]()


def test_each_number_of_the_first_table_is_in_the_results():
    """Found by another way: of each system the line that begins with the filter."""
    results = (ROOT / "benchmarks" / "results" / "comparison.txt").read_text(encoding="utf-8")
    head, _, *rows = re.findall(
        r"^\|.*\|$", PAGE.read_text(encoding="utf-8").split("## How")[0], re.MULTILINE
    )
    systems = [each.strip() for each in head.strip("|").split("|")[1:]]
    assert len(systems) == 6
    checked = 0
    for row in rows:
        filter, *cells = (each.strip().strip("*") for each in row.strip("|").split("|"))
        for system, cell in zip(systems, cells, strict=True):
            part = re.search(rf"^{system}: .*?(?=\n\n|\Z)", results, re.MULTILINE | re.DOTALL)
            line = re.search(rf"^{filter} .*$", part[0], re.MULTILINE)
            assert (line is None) == (cell == "–"), (filter, system)
            if line is not None and "±" in cell:
                assert line[0].split()[1:4] == cell.split(",")[0].split(), (filter, system)
                checked += 1
            if line is not None:
                lost = re.search(r"(\d)/5", line[0])[1]
                assert (lost != "0") == ("lost" in cell)
    assert checked > 60
