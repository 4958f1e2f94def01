"""The page of a sweep that goes on: the report as it is by now, without what takes long to draw, under what happens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from optsweep.launch.live.reading import LiveView
from optsweep.launch.live.report import LiveFinding
from optsweep.launch.live.state import InTraining, State
from optsweep.launch.live.terminal import standing
from optsweep.report import page, wording
from optsweep.report.across.findings import across
from optsweep.report.arm_result import LOSS, measured
from optsweep.report.comparison import Group
from optsweep.report.figures import curves, learning_rate
from optsweep.report.figures.canvas import Drawing
from optsweep.report.figures.touch import Sampled, Touch, shared
from optsweep.report.styles import MOST_COLOURS
from optsweep.report.templates import environment
from optsweep.report.write import across_plans
from optsweep.search.latest import Points

MOST_TRIALS = 24
"""In training, that are drawn; of more, the last that began."""


def parts(view: LiveView) -> dict[str, str]:
    """What happens now, as HTML by the part of the page; every text in it is escaped."""
    now, template = view.snapshot, _environment().get_template("live_parts.html")
    made: Any = template.make_module({"state": _badge(view), "MOST": MOST_COLOURS})
    return {
        "progress": str(made.progress(now, view, standing(view))),
        "arms": str(made.arms(now, view.finding.styles)),
        "workers": str(made.workers(now)),
        "incidents": str(made.incidents(now)),
    }


def _badge(view: LiveView) -> tuple[str, str]:
    if view.ended:
        return "good", "ended"
    return {
        State.RUNNING: ("good", "running"),
        State.TRAINED: ("good", "trained"),
        State.STOPPED: ("bad", "stopped"),
    }[view.snapshot.state]


def as_event(view: LiveView) -> str:
    """What happens now, as the page's script takes it."""
    training = view.snapshot.training[-MOST_TRIALS:]
    content = {"parts": parts(view), "curves": _curves(training, view.finding)}
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _curves(training: Sequence[InTraining], finding: LiveFinding) -> dict[str, Any]:
    """As `report.page.curves` makes them of arms, with a trial in the place of each."""
    styles, drawn = finding.styles, drawn_of(finding)
    arms = [
        {"label": t.label, "short": t.label, "style": styles.get(t.arm, MOST_COLOURS), "baseline": False}
        for t in training
    ]
    places = {trial.label: place for place, trial in enumerate(training)}
    of_each = {
        "now_val": {trial.label: trial.val for trial in training},
        "now_train": {trial.label: trial.train for trial in training},
    }
    figures = {name: _touch(drawn[name], points) for name, points in of_each.items()}
    return {"arms": arms, "figures": {n: found.as_json(places) for n, found in figures.items() if found is not None}}


def drawn_of(finding: LiveFinding) -> dict[str, str]:
    """What is drawn of trials in training, by its name on the page."""
    decides = measured(arm for group in finding.groups for arm in group.arms) or LOSS
    return {"now_val": f"validation {decides}", "now_train": "training loss"}


def _touch(label: str, points: Mapping[str, Points]) -> Touch | None:
    held = {of: _sampled(found) for of, found in points.items() if len(found) > 1}
    if not held:
        return None
    x, lines = shared(held)
    return Touch(x, "optimizer steps", label, lines, whole=True)


def _sampled(points: Points) -> Sampled:
    steps, values = np.array([step for step, _ in points]), np.array([value for _, value in points])
    return Sampled(steps.astype(np.float64), values.astype(np.float64), None, "")


def render(view: LiveView, tracking_uri: str) -> tuple[str, str]:
    """The page, and what tells it from the one before."""
    finding = view.finding
    version = version_of(finding)
    found = across(finding.groups)
    html = page.render(
        [finding.record],
        finding.verdicts,
        [_drawings(group) for group in finding.groups],
        found,
        [[] for _ in across_plans(found)],
        "",
        tracking_uri,
        template="live.html",
        leading=[("now", "Now")],
        parts={name: Markup(content) for name, content in parts(view).items()},  # made above, escaped there
        now_figures={n: f"{wording.capital(what)} of trials in training" for n, what in drawn_of(finding).items()},
        version=version,
    )
    return html, version


def version_of(finding: LiveFinding) -> str:
    """Another for another content."""
    trials = [(t.run_id, t.status) for arm in finding.record.arms for t in arm.trials]
    said = [finding.record.run_id, trials, [verdict.text for verdict in finding.verdicts], finding.reported]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def _drawings(group: Group) -> list[Drawing]:
    """Those figures that the page draws by itself."""
    plans = [*curves.plans(group), *learning_rate.plans(group)]
    return [
        Drawing(plan.name, plan.title, plan.caption, plan.alt, "", plan.wide, plan.touch)
        for plan in plans
        if plan.touch is not None
    ]


@cache
def _environment() -> Environment:
    found = environment()
    found.filters.update(number=wording.number, ago=_ago, clock=_clock)
    return found


def _ago(seconds: float) -> str:
    """In steps of five seconds: a page isn't sent again because a second went by."""
    return f"{5 * round(seconds / 5)} s" if seconds < 60 else wording.duration(60 * round(seconds / 60))


def _clock(when: datetime) -> str:
    return f"{when.astimezone():%H:%M:%S}"
