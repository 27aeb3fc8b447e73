"""Vega-Lite specifications drawn as SVG when the page is made: no script in the page, no network, the same bytes.

Colours are the page's CSS variables, so one drawing serves light, dark and paper. Text is measured by a font that the
library brings, so that a drawing does not depend on the fonts of the machine.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import vl_convert
from markupsafe import Markup

Spec = dict[str, Any]

# CSS pixels: of a page on a desk, half of one, and of a phone, where labels must not shrink
WIDE, HALF, NARROW = 720, 560, 350
_VERSION = "6.4"  # of Vega-Lite
_NAMESPACE = re.compile(r' xmlns(:\w+)?="[^"]*"')  # which HTML does not need
_CONFIG: Spec = {
    "aria": False,  # a picture is read as one text
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domain": False, "ticks": False, "gridColor": "var(--rule)", "labelColor": "var(--quiet)", "labelFontSize": 12,
        "labelPadding": 6, "titleColor": "var(--quiet)", "titleFontSize": 12, "titleFontWeight": "normal",
        "labelOverlap": "greedy", "labelFlush": False,
    },
    "axisX": {"grid": False, "titlePadding": 8},
    "axisY": {"tickCount": 5},
}  # fmt: skip

ALIKE: Spec = {"type": "nominal", "scale": None, "legend": None}  # an encoding whose values are what is drawn
MOMENTS: Spec = {"type": "ordinal", "sort": None, "title": None, "axis": {"labelAngle": 0}}  # an axis of dates


@dataclass(frozen=True)
class Picture:
    """A drawing: what it says to who does not see it, and its SVG for a wide page and for a phone.

    key: the names of what is drawn, each with the SVG of its mark.
    """

    says: str
    wide: Markup
    narrow: Markup
    key: tuple[tuple[str, Markup], ...] = ()


def picture(
    says: str, spec: Spec, height: int = 260, key: Mapping[str, Markup] | None = None, wide: int = WIDE
) -> Picture:
    """Return the drawing of a specification.

    wide: how wide a desk shows it; one that stands beside another HALF, beside several NARROW.
    """
    narrow = drawn(spec, NARROW, height)
    return Picture(says, narrow if wide == NARROW else drawn(spec, wide, height), narrow, tuple((key or {}).items()))


def drawn(spec: Spec, width: int, height: int, padding: int | Spec = 4) -> Markup:
    """Return the SVG of a specification, of that size in CSS pixels with all its labels, if it says nothing else."""
    whole = {
        "width": width, "height": height, "padding": padding, "autosize": {"type": "fit", "contains": "padding"},
        "background": None, "config": _CONFIG, **spec,
    }  # fmt: skip
    svg = vl_convert.vegalite_to_svg(whole, vl_version=_VERSION, allowed_base_urls=[])
    return Markup(_NAMESPACE.sub("", svg))
