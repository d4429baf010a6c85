"""Diverging colour maps for fields of either sign: white at zero, equally dark at both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

__all__ = ["ANCHORS", "diverging"]

ANCHORS = {
    "vorticity": "23304a 255490 247cca 3ca8f5 90d3ff f7f7f7 ffbc9b f2825a c45842 8a3a36 482728",
    "error": "1f3524 2a5e2d 4a873c 7aaf5b b1d68d f7f7f7 ddbeff c08ddf 9c64ad 704375 3e2a3c",
}
"""Equally spaced colours, from the most negative value to the most positive. CIE lightness goes linearly from
20 at both ends to 97 in the middle; hues are chosen in OKLCh (blue and orange-red, green and purple), with as
much chroma as sRGB holds up to a bound. matplotlib's white-centred maps are less even: the ends of PuOr have
lightness 10 and 33, those of PRGn 13 and 24, and RdBu is pale over half of its range."""


def diverging(name: str) -> Colormap:
    """The colour map `vorticity` or `error`; grey where a value is NaN."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = [f"#{color}" for color in ANCHORS[name].split()]
    colormap = LinearSegmentedColormap.from_list(name, colors, N=255)  # odd: zero has a colour of its own
    return colormap.with_extremes(bad="#c8c8c8")
