"""What the texts point to is there: links, paths of files, the commands of the results."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "paper/paper.md")]
TEXTS += sorted((ROOT / "docs").rglob("*.md"))
RESULTS = sorted((ROOT / "benchmarks" / "results").iterdir())
PATHS = re.compile(
    r"\b(?:benchmarks|configs|docs|masf_jax|notebooks|tests)/[\w/.-]+\.(?:csv|ipynb|md|py|txt|yaml)\b"
)


def missing(paths):
    return [str(path) for path in paths if not path.exists()]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(text):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text.read_text(encoding="utf-8"))
    assert not missing(text.parent / link for link in links if "://" not in link)


@pytest.mark.parametrize(
    "where",
    ["README.md", "CONTRIBUTING.md", "paper", "docs", "masf_jax", "benchmarks", "configs", "notebooks"],
)
def test_paths_that_are_named_are_there(where):
    files = [path for path in (ROOT / where).rglob("*") if path.suffix in (".md", ".py", ".txt", ".yaml")]
    files = files or [ROOT / where]
    named = {ROOT / name for path in files for name in PATHS.findall(path.read_text(encoding="utf-8"))}
    assert not missing(named)


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.name)
def test_a_result_names_its_command_first(result):
    first = result.read_text(encoding="utf-8").split("\n")[0]
    command = re.match(r"(?:# )?python (benchmarks/\w+/\w+\.py)\b", first)
    assert command, f"{result.name} begins with {first!r}, not with the command that makes it"
    assert (ROOT / command[1]).is_file()


def test_the_site_has_every_page():
    """mkdocs itself looks at links and anchors: python -m mkdocs build --strict."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = re.findall(r"'([\w/]+\.md)'", str(nav))
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(named) == sorted([*pages, "contributing.md"])  # CONTRIBUTING.md, by .ci/site.py


def test_citations_of_the_paper_are_in_its_list():
    text = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")
    cited = set(re.findall(r"@(\w+)", " ".join(re.findall(r"\[(@[^\]]+)\]", text))))
    listed = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "paper" / "paper.bib").read_text(), re.MULTILINE))
    assert cited == listed
