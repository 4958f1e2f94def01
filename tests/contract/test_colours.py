"""Colours of the page: read in light and dark, told apart."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import Mock

from optsweep.report import page as report_page
from optsweep.report.figures import canvas
from optsweep.report.styles import MOST_COLOURS


def test_text_has_contrast_in_light_and_dark() -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 between text and what it stands on."""
    css = (Path(report_page.__file__).with_name("page.css")).read_text()
    roots = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark, printed = (dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{3,6})", root)) for root in roots)
    on = {"page": ("ink", "muted", "link"), "card": ("ink", "muted", "link", "good", "bad", "open", "same")}
    on |= {f"{kind}-soft": (kind,) for kind in ("good", "bad", "open", "same")}
    for held in (light, dark, light | printed):
        for ground, texts in on.items():
            for text in texts:
                pair = sorted((_luminance(held[f"--{ground}"]), _luminance(held[f"--{text}"])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (text, ground)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_arms_with_a_colour_keep_apart_and_all_others_are_one_grey() -> None:
    arms = [Mock(style=i) for i in range(40)]
    assert len({canvas.colour(arm) for arm in arms[:MOST_COLOURS]}) == MOST_COLOURS == len(canvas.COLOURS)
    assert {canvas.colour(arm) for arm in arms[MOST_COLOURS:]} == {canvas.REST}
