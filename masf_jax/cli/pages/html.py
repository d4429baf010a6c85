"""A page of HTML in one file: nothing is loaded from elsewhere, and all text is escaped."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["alert", "escaped", "figures", "folded", "page", "paragraph", "section", "table"]

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 72rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: .5rem 0; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .5rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; overflow-wrap: normal; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e4e4e4;
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
p { margin: .4rem 0; }
pre { background: #f5f5f5; padding: .7rem; font-size: .82rem; white-space: pre-wrap; }
code { font-size: .9em; }
.alert { border-left: .3rem solid #d55e00; background: #fdf1e8; padding: .5rem .8rem; margin: .5rem 0; }
.fine { border-left: .3rem solid #009e73; background: #eaf6f2; padding: .5rem .8rem; margin: .5rem 0; }
.figures { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
figure img { width: 100%; height: auto; }
figcaption { font-size: .85rem; color: #444; }
summary { cursor: pointer; padding: .2rem 0; }
"""
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def escaped(text: object) -> str:
    """Text as it may stand in HTML, with control characters shown as such."""
    return html.escape(printable(str(text)))


def page(title: str, sections: Iterable[str]) -> str:
    return _HEAD.format(title=escaped(title), style=_STYLE, body="\n".join(sections))


def paragraph(text: object) -> str:
    return f"<p>{escaped(text)}</p>"


def section(heading: str, *parts: str) -> str:
    return "\n".join([f"<section><h2>{escaped(heading)}</h2>", *parts, "</section>"])


def alert(texts: Sequence[str], otherwise: str) -> str:
    """Each text as a warning, or that there is none."""
    if not texts:
        return f'<p class="fine">{escaped(otherwise)}</p>'
    return "\n".join(f'<p class="alert">{escaped(text)}</p>' for text in texts)


def table(rows: Iterable[Sequence[object]], head: Sequence[str] = (), numbers_from: int = 1) -> str:
    """A table that scrolls where it is wider than the page; columns from `numbers_from` on are numbers."""

    def cells(row: Sequence[object], tag: str) -> str:
        kinds = (' class="number"' if i >= numbers_from else "" for i in range(len(row)))
        return "".join(f"<{tag}{kind}>{escaped(each)}</{tag}>" for each, kind in zip(row, kinds, strict=True))

    top = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def folded(summary: str, text: str) -> str:
    """Long text that is shown when asked for."""
    return f"<details><summary>{escaped(summary)}</summary><pre>{escaped(text)}</pre></details>"


def figures(drawn: Iterable[tuple[str, str, Figure]], dpi: int) -> str:
    """Name, caption and figure of each, as PNG in the page."""
    parts = []
    for name, caption, figure in drawn:
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=dpi)
        data = base64.b64encode(content.getvalue()).decode("ascii")
        image = f'<img alt="{escaped(name)}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption>{escaped(caption)}</figcaption></figure>")
    return f'<div class="figures">{"".join(parts)}</div>'
