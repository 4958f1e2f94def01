"""The catalogue's pictures: every schedule and warm-up as a small SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from optsweep.optim import schedules
from optsweep.optim.schedules import Schedule, warmup_names

CONF = Path(__file__).resolve().parents[1] / "conf"

STEPS = 500  # of the runs in the pictures
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 300, 120, 26, 8, 8, 18
LINE, FAINT, INK = "#2f6fb7", "#c2702a", "#808890"  # readable on white and on dark pages alike

VARIANTS: Mapping[str, Mapping[str, Any]] = {  # a second curve in the picture
    "cosine_restarts": {"first": 0.15, "factor": 2.0},
    "one_cycle": {"anneal": "linear"},
    "polynomial": {"power": 0.5},
    "step": {"gamma": 0.5},
    "wsd": {"shape": "linear"},
}


def pictures(names: Iterable[str]) -> dict[str, str]:
    """File name → SVG of these schedules, and of all warm-ups."""
    drawn = {}
    for name in names:
        options = {
            k: v for k, v in yaml.safe_load((CONF / "schedule" / f"{name}.yaml").read_text()).items() if k != "name"
        }
        options = {k: v for k, v in options.items() if k in schedules.schedule_options(name)}
        warmup = ("none", 0) if schedules.traits_of(name).own_warmup else ("linear", round(0.05 * STEPS))
        curves = [_curve(Schedule(name, options, *warmup))]
        labels = [""]
        if variant := VARIANTS.get(name):
            curves.append(_curve(Schedule(name, {**options, **variant}, *warmup)))
            labels.append(", ".join(f"{k} {v}" for k, v in variant.items()))
        drawn[f"{name}.svg"] = _svg(name, curves, labels, 1.0)
    for name in warmup_names():
        if name != "none":
            curve = _curve(Schedule("constant", {}, name, STEPS // 2))
            drawn[f"warmup_{name}.svg"] = _svg(f"{name} warm-up", [curve], [""], 0.5)
    return drawn


def _curve(schedule: Schedule) -> list[float]:
    """The multipliers of a run; plateau sees a loss that stops falling in the middle."""
    run = schedule.start(STEPS)
    rungs = 20
    for rung in range(1, rungs + 1):
        run.extend(STEPS * rung // rungs)
        run.observe(max(1 / rung, 2 / rungs))
    return [float(value) for value in run.values]


def _svg(title: str, curves: Sequence[Sequence[float]], labels: Sequence[str], scale: float) -> str:
    """Curves between 0 and 1 over the steps; written out by hand, so that it is the same on every machine."""
    width = round(WIDTH * scale)
    x_of = (width - LEFT - RIGHT) / (STEPS - 1)
    bottom = HEIGHT - BOTTOM
    text = f'<text fill="{INK}" font-family="sans-serif" font-size="10"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'role="img"><title>{title}: multiplier of the peak LR over {STEPS} steps</title>',
        f'<path d="M{LEFT} {TOP}V{bottom}H{width - RIGHT}" fill="none" stroke="{INK}" stroke-width="1"/>',
        f'{text} x="{LEFT - 5}" y="{TOP + 6}" text-anchor="end">1</text>',
        f'{text} x="{LEFT - 5}" y="{bottom + 3}" text-anchor="end">0</text>',
        f'{text} x="{LEFT}" y="{HEIGHT - 5}">0</text>',
        f'{text} x="{width - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">step {STEPS}</text>',
    ]
    styles = (f'stroke="{LINE}" stroke-width="2"', f'stroke="{FAINT}" stroke-width="1.5" stroke-dasharray="5 3"')
    for curve, label, style in reversed(list(zip(curves, labels, styles, strict=False))):
        points = " ".join(
            f"{LEFT + x_of * step:.1f},{bottom - value * (bottom - TOP):.1f}" for step, value in _corners(curve)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke-linejoin="round" {style}/>')
        if label:
            middle = (LEFT + width - RIGHT) // 2
            parts.append(
                f'<text fill="{FAINT}" font-family="sans-serif" font-size="10" x="{middle}" y="{HEIGHT - 5}" '
                f'text-anchor="middle">dashed: {label}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _corners(curve: Sequence[float]) -> list[tuple[int, float]]:
    """Every fourth step, and both sides of every jump."""
    last = len(curve) - 1
    jumps = {k for k in range(last) if abs(curve[k + 1] - curve[k]) > 0.03}
    kept = {*range(0, last, 4), last, *jumps, *(k + 1 for k in jumps)}
    return [(k, curve[k]) for k in sorted(kept)]
