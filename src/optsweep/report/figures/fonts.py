"""The font inside an SVG file: what its texts need of it, so that they look alike on a machine that hasn't it."""

from __future__ import annotations

import base64
import io
import re
import string
from functools import cache
from html import unescape
from pathlib import Path

FONT = "DejaVu Sans"  # free to embed; matplotlib brings it
_USUAL = frozenset(string.printable.strip() + " −×·–—…∞≥≤±→←λβδθμ½²⁻⁰¹³⁴⁵⁶⁷⁸⁹%✕∪√" + "ÄÖÜäöüßéèêáàíóúñç")


def with_font(svg: str) -> str:
    """The document with a subset of the font in it."""
    texts = "".join(map(unescape, re.findall(r"<text[^>]*>([^<]*)</text>", svg)))
    rule = f'@font-face {{ font-family: "{FONT}"; src: url(data:font/woff;base64,{_subset(_USUAL | set(texts))}); }}'
    return svg.replace("<defs>", f"<defs>\n  <style>{rule}</style>", 1)


@cache
def _subset(characters: frozenset[str]) -> str:
    """The glyphs of these characters, as WOFF in base64; the same bytes each time."""
    from fontTools import subset
    from matplotlib import get_data_path

    options = subset.Options(hinting=False, layout_features=[], name_IDs=[], notdef_outline=True, flavor="woff")
    options.recalc_timestamp = False
    options.drop_tables += ["FFTM"]  # of the font's editor
    font = subset.load_font(str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text="".join(characters))
    subsetter.subset(font)
    font.flavor = "woff"
    content = io.BytesIO()
    font.save(content)
    return base64.b64encode(content.getvalue()).decode("ascii")
