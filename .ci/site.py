"""What mkdocs is told beside mkdocs.yml: files that pages link to outside docs/, and pages of the API.

The site holds all it links to: results of benchmarks, sources and configurations are copied into it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
PACKAGES = {
    "masf_jax": "The core",
    "masf_jax.dynamics": "Models",
    "masf_jax.measurements": "Measurements",
    "masf_jax.filters": "Filters",
    "masf_jax.masf": "MASF",
    "masf_jax.smoothers": "Smoothers",
    "masf_jax.estimation": "Estimation",
    "masf_jax.amortised": "Amortised",
    "masf_jax.ensemble": "Ensemble",
    "masf_jax.diffusion": "Diffusion",
    "masf_jax.denoisers": "Denoisers",
    "masf_jax.training": "Training",
    "masf_jax.metrics": "Scores",
    "masf_jax.observations": "Observation files",
    "masf_jax.results": "Datasets",
    "masf_jax.plots": "Figures",
}


def on_config(config: Any) -> Any:
    pages = [{title: f"api/{package}.md"} for package, title in PACKAGES.items()]
    config.nav = [*config.nav, {"API": pages}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the API, CONTRIBUTING.md, and the files outside docs/ that pages link to."""
    for package, title in PACKAGES.items():
        files.append(File.generated(config, f"api/{package}.md", content=api_page(package, title)))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "contributing.md", content=text.replace("](docs/", "](")))
    wanted = set()
    for page in (ROOT / "docs").glob("*.md"):
        wanted |= {path for path, _ in OUTSIDE.findall(page.read_text(encoding="utf-8"))}
    for path in sorted(wanted):
        if (ROOT / path).is_file():
            name = _as_text(path)
            files.append(File.generated(config, name, content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links to files outside docs/ lead to their copies."""
    return OUTSIDE.sub(lambda found: f"]({_as_text(found[1])})", markdown)


def _as_text(path: str) -> str:
    """Where a copy lies: pages are no pages there, and sources are shown, not downloaded."""
    return f"files/{path}" + (".txt" if path.endswith((".md", ".py", ".yaml")) else "")


@functools.cache
def public(package: str) -> dict[str, Any]:
    """The public functions and classes of a package by name, as users reach them."""
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None) or dir(module)
    found = {}
    for name in names:
        value = None if name.startswith("_") else getattr(module, name)
        home = getattr(value, "__module__", None) or ""
        if (
            (inspect.isclass(value) or inspect.isfunction(value))
            and home.startswith("masf_jax")
            and home != "masf_jax._lazy"
        ):
            found[name] = value
    return found


def api_page(package: str, title: str) -> str:
    """What is reached from several packages is described in one, and linked to from the others."""
    blocks = [f"# {title}", f"`{package}`. {inspect.getdoc(importlib.import_module(package)) or ''}"]
    for name, value in public(package).items():
        where = f"{value.__module__}.{value.__qualname__}"
        if home(value) == package:
            blocks.append(
                f"## {name} {{#{value.__name__}}}\n\n```python\n{signature(name, value)}\n```\n\n::: {where}"
            )
        else:
            called, there = value.__name__, home(value)
            blocks.append(f"## {name}\n\nSee [`{there}.{called}`]({there}.md#{called}).")
    return "\n\n".join(blocks) + "\n"


def signature(name: str, value: Any) -> str:
    """How it is called, with the defaults that can be written; fields of modules are parameters, too."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):  # of what has none
        return name
    plain = (int, float, str, bool, tuple, type(None))
    shown = []
    for each in parameters:
        given = each.default is each.empty or isinstance(each.default, plain)
        default = each.default if given else Ellipsis
        shown.append(each.replace(annotation=each.empty, default=default))
    text = str(inspect.Signature(shown)).replace("Ellipsis", "…")
    if len(name + text) > 90:
        text = "(\n    " + ",\n    ".join(str(each).replace("Ellipsis", "…") for each in shown) + ",\n)"
    return name + text


@functools.cache
def home(value: Any) -> str:
    """The package a function or class is described in: the one it is defined in, else the last."""
    having = [package for package in PACKAGES if value in public(package).values()]
    own = [package for package in having[1:] + having[:1] if value.__module__.startswith(f"{package}.")]
    return max(own, key=len, default=having[-1])
