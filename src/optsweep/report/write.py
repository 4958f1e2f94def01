"""Writes the report folder of loaded sweeps: findings first, then figures, page, results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optsweep.report import Report, page, references, results
from optsweep.report.across.findings import Across, across
from optsweep.report.comparison import Group, compare
from optsweep.report.figures import (
    canvas,
    crossed,
    curves,
    decay_modes,
    factorial,
    heat,
    importance,
    learning_rate,
    lengths,
    lr_response,
    outcome,
    paths,
    profile,
    ranking,
    ranks,
    schedules,
    search,
)
from optsweep.report.processes import Helpers
from optsweep.report.table import table
from optsweep.report.verdict import verdict
from optsweep.tracking.reader import SweepRecord


def stated(sweeps: Sequence[SweepRecord]) -> dict[str, Any]:
    """What results.json would state, without the figures, which aren't drawn."""
    groups = compare(sweeps)
    return results.results(sweeps, [verdict(group) for group in groups], across(groups), [])


def write(
    sweeps: Sequence[SweepRecord], tracking_uri: str, out: Path, helped: Helpers | None = None, *, pdf: bool = False
) -> Report:
    """Write the folder `out`; figures of an earlier report in it that no longer exist are removed."""
    groups = compare(sweeps)
    verdicts = [verdict(group) for group in groups]
    found = across(groups)
    out.mkdir(parents=True, exist_ok=True)
    _remove_old_figures(out)
    drawings = _draw(groups, partial(canvas.save, folder=out / "figures", pdf=pdf), helped)
    over = _draw_across(found, partial(canvas.save, folder=out / "figures", pdf=pdf))
    drawn = [drawing for held in (*drawings, *over) for drawing in held]
    cited = references.bibliography(sweeps, groups, [drawing.name for drawing in drawn])
    content = results.results(sweeps, verdicts, found, drawn)
    (out / "results.json").write_text(results.as_json(content), encoding="utf-8")
    (out / "results.csv").write_text(results.as_csv(sweeps), encoding="utf-8")
    (out / "references.bib").write_text(cited, encoding="utf-8")
    index = out / "index.html"
    index.write_text(page.render(sweeps, verdicts, drawings, found, over, cited, tracking_uri), encoding="utf-8")
    columns, rows = table(groups)
    return Report(index, found.around([v.text for v in verdicts]), columns, rows, bool(content["partial"]))


def named_plans(groups: Sequence[Group], found: Across) -> dict[str, canvas.FigurePlan]:
    """Every figure that there are data for, by the name of its file, those of a group as the page has them."""
    plans: dict[str, canvas.FigurePlan] = {}
    for group, prefix in zip(groups, _prefixes(groups), strict=True):
        held = [plan for kind in _FIGURES for plan in kind(group)]
        plans |= {
            f"{prefix}{plan.name}": plan for plan in sorted(held, key=lambda plan: (plan.wide, _place(plan.name)))
        }
    over = across_plans(found)
    return plans | {
        f"{prefix}{plan.name}": plan
        for prefix, held in zip(_across_prefixes(len(over)), over, strict=True)
        for plan in held
    }


def _prefixes(groups: Sequence[Group]) -> list[str]:
    """What the names of each group's files begin with."""
    return [_prefix(group, place) if len(groups) > 1 else "" for place, group in enumerate(groups, 1)]


def _across_prefixes(count: int) -> list[str]:
    """The same, of each finding over several groups."""
    return [f"across-{place:02d}-" if count > 1 else "across-" for place in range(1, count + 1)]


_Save = Callable[[canvas.FigurePlan, str], canvas.Drawing]


def _draw(groups: Sequence[Group], save: _Save, helped: Helpers | None) -> list[list[canvas.Drawing]]:
    """All figures of all groups; with several groups their files start with the group's number and name."""
    prefixes = _prefixes(groups)
    tasks = [(place, kind) for place in range(len(groups)) for kind in _FIGURES]
    draw = partial(_draw_kind, groups=groups, prefixes=prefixes, save=save)
    drawn = iter([draw(task) for task in tasks] if helped is None else helped.share(draw, tasks))
    found = []
    for prefix in prefixes:
        held = [(drawing, prefix) for _ in _FIGURES for drawing in next(drawn)]
        found.append([drawing for drawing, _ in sorted(held, key=_on_the_page)])
    return found


def _on_the_page(of: tuple[canvas.Drawing, str]) -> tuple[bool, int]:
    drawing, prefix = of
    return drawing.wide, _place(drawing.name.removeprefix(prefix))


def _prefix(group: Group, place: int) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", group.title.lower()).strip("-")[:40]
    return f"{place:02d}-{slug}-"


def _draw_kind(
    task: tuple[int, _Kind], groups: Sequence[Group], prefixes: Sequence[str], save: _Save
) -> list[canvas.Drawing]:
    place, kind = task
    return [save(plan, prefixes[place]) for plan in kind(groups[place])]


def across_plans(found: Across) -> list[list[canvas.FigurePlan]]:
    """The figures of each finding, in the order of its lists."""
    over = [lengths.plans(held) for held, _ in found.run_lengths]
    over += [[*profile.plans(held), *ranks.plans_over(held)] for held, _ in found.tasks]
    return over + [factorial.plans(held) for held, _ in found.factorials]


def _draw_across(found: Across, save: _Save) -> list[list[canvas.Drawing]]:
    """The figures of each finding over several groups."""
    plans = across_plans(found)
    named = zip(_across_prefixes(len(plans)), plans, strict=True)
    return [[save(plan, prefix) for plan in held] for prefix, held in named]


_Kind = Callable[[Group], list[canvas.FigurePlan]]
_FIGURES: tuple[_Kind, ...] = (
    search.plans,  # half of the time, so begun first where several processes draw
    outcome.plans,
    crossed.plans,
    paths.plans,
    curves.plans,
    learning_rate.plans,
    lr_response.plans,
    decay_modes.plans,
    heat.plans,
    schedules.plans,
    importance.plans,
    ranking.plans,
    ranks.plans,
)

# as the page shows them, two a row: neighbours are of like height; an underscore stands for all names that begin so
_ORDER = (
    "difference",
    "grid",
    "cost",
    "val_loss",
    "val_aside",
    "test_loss",
    "paths",
    "lr_response",
    "decay_modes",
    "heat_",
    "val_loss_seconds",
    "train_loss",
    "lr_sensitivity",
    "lr_decay",
    "lr_",
    "learning_rate",
    "schedules",
    "tuning",
    "ranking",
    "importance",
    "ranks",
)


def _place(name: str) -> int:
    """A figure's place on the page."""
    return next(at for at, known in enumerate(_ORDER) if name == known or (known[-1] == "_" and name.startswith(known)))


def _remove_old_figures(out: Path) -> None:
    """Only what an earlier results.json lists as its own: the folder may hold other things."""
    try:
        listed = json.loads((out / "results.json").read_text(encoding="utf-8"))["figures"]
        listed = [figure["name"] if isinstance(figure, dict) else figure for figure in listed]
    except (OSError, ValueError, KeyError):
        return
    for name in listed:
        if re.fullmatch(r"[a-z0-9_-]+", name):
            for suffix in ("png", "svg", "pdf"):
                (out / "figures" / f"{name}.{suffix}").unlink(missing_ok=True)
