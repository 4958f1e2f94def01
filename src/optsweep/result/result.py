"""The result of a sweep: what its report states, as objects. Made from a results.json, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.errors import UserError, nearest
from optsweep.report.comparison import Group, compare
from optsweep.report.table import table
from optsweep.result import stored
from optsweep.result.best import Best, best_of
from optsweep.result.stored import Content

if TYPE_CHECKING:  # these take a second
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from optsweep.report.arm_result import ArmResult
    from optsweep.report.figures.canvas import FigurePlan

_SHOWN_FIRST = ("difference", "test_loss", "val_loss")
"""Figures of which the first that there is stands beside the verdict."""


@dataclass(frozen=True, eq=False)
class Result:
    """What came out of a sweep.

    `verdict` says it in sentences, `arms`, `trials` and `curves` are pandas' frames, `figure("val_loss")` draws as the
    report does, `best("soap + schedule_free")` is an optimizer with the chosen numbers. `print(result)` says what
    the terminal does; a notebook shows verdict, table and main figure.
    """

    content: Content  # of results.json
    groups: tuple[Group, ...]  # the same as objects, made from it
    page: Path | None  # the report; None: none has been written
    note: str = ""  # whether the report is there and states all that there is; empty if so

    @staticmethod
    def of(content: Content, where: str, page: Path | None = None, note: str = "") -> Result:
        """The result that a checked results.json states. Raises UserError, naming `where`, for a damaged one."""
        return Result(content, compare(stored.records(content, where)), page, note)

    # -- in words ------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The sweeps."""
        return tuple(sweep["name"] for sweep in self.content["sweeps"])

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What holds over tasks or settings, a paragraph for each of them, and effects of crossed choices."""
        if "verdicts" in self.content:
            return tuple(self.content["verdicts"])
        keys = ("headline", "ranking")  # of an earlier version
        return tuple(" ".join(filter(None, (group.get(key, "") for key in keys))) for group in self.content["groups"])

    @property
    def verdict(self) -> str:
        """The same as one text."""
        return "\n\n".join(self.verdicts)

    @property
    def partial(self) -> bool:
        """Whether planned trials have no result yet."""
        return bool(self.content["partial"])

    @property
    def caveats(self) -> tuple[str, ...]:
        """What to beware of."""
        return tuple(dict.fromkeys(text for group in self.content["groups"] for text in group["caveats"]))

    @property
    def labels(self) -> tuple[str, ...]:
        """The arms, the baseline of each task first to last as the report has them."""
        return tuple(arm.label for group in self.groups for arm in group.arms)

    @cached_property
    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Columns, and a row per arm, as text."""
        return table(self.groups)

    def __str__(self) -> str:
        report = f"report: {self.page}" if self.page else ""
        return "\n\n".join(filter(None, (self.verdict, self.note, report)))

    def __repr__(self) -> str:
        return f"<optsweep.Result {'+'.join(self.names)}: {len(self.labels)} arms>"

    def _repr_html_(self) -> str:
        """Verdict with its conditions, table, main figure; every text escaped, nothing fetched."""
        from optsweep.result.html import html

        return html(self)

    # -- as data -------------------------------------------------------------------------------------------------

    @property
    def arms(self) -> DataFrame:
        """A row per arm: best setting, means with 95 % intervals (_low, _high), difference to the baseline, costs."""
        from optsweep.result import tables

        return tables.arms(self.groups)

    @property
    def trials(self) -> DataFrame:
        """A row per trial: phase, repeat, seed, how it ended, hyperparameters, last losses."""
        from optsweep.result import tables

        return tables.trials(self.groups)

    @property
    def curves(self) -> DataFrame:
        """The confirm trials' losses: task, arm, repeat, seed, metric (val_loss, train_loss), step, value."""
        from optsweep.result import tables

        return tables.curves(self.groups)

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that there are data for, in the order of the page."""
        return tuple(self._plans)

    def figure(self, name: str) -> Figure:
        """A figure of the report, to show, change or save (`figure.savefig(path)`).

        Of several tasks the names begin with the task's number. Raises UserError for a name that there isn't.
        """
        from optsweep.report.figures.canvas import style

        plan = self._plans[_one_of("figure", name, {key: [key] for key in self._plans}, _ends_alike)]
        with style():
            return plan.draw()

    @property
    def main_figure(self) -> FigurePlan | None:
        """The one beside the verdict."""
        names = [key for wanted in _SHOWN_FIRST for key in self._plans if _ends_alike(wanted, key)]
        return self._plans[names[0]] if names else None

    def best(self, arm: str) -> Best:
        """The best setting of an arm, named by its label or its whole name; see `Best` for which of several searches.

        Raises UserError for an arm that there isn't, or that has none yet.
        """
        known: dict[str, list[ArmResult]] = {}
        for group in self.groups:
            for found in group.arms:
                for key in dict.fromkeys((found.label, found.name)):
                    known.setdefault(key, []).append(found)
        key = _one_of("best", arm, {found: [held.name for held in arms] for found, arms in known.items()})
        return best_of(known[key][0])

    # -- from which it is made -----------------------------------------------------------------------------------

    @cached_property
    def _plans(self) -> Mapping[str, FigurePlan]:
        """What can be drawn, by name."""
        from optsweep.report.across.findings import across
        from optsweep.report.write import named_plans
        from optsweep.result.schedule import with_schedules

        sweeps = {id(group.sweep): group.sweep for group in self.groups}.values()
        groups = compare([replace(sweep, arms=with_schedules(sweep)) for sweep in sweeps])
        return named_plans(groups, across(groups))


def _ends_alike(wanted: str, name: str) -> bool:
    """Whether a name without its task's number is meant."""
    return name == wanted or name.endswith(f"-{wanted}")


def _one_of(
    what: str,
    wanted: str,
    known: Mapping[str, Sequence[str]],
    alike: Callable[[str, str], bool] = lambda wanted, name: False,
) -> str:
    """The key that is meant. Raises UserError where there is none, or several things are called so."""
    keys = [wanted] if wanted in known else [key for key in known if alike(str(wanted), key)]
    if len(keys) == 1 and len(known[keys[0]]) == 1:
        return keys[0]
    if keys:
        several = keys if len(keys) > 1 else list(known[keys[0]])
        raise UserError(f"{what}: {wanted!r} is one of several; give one of {', '.join(map(repr, several))}")
    shown = list(known)[:12]
    more = f", … ({len(known)} in all)" if len(known) > len(shown) else ""
    raise UserError(
        f"{what}: there is no {wanted!r}{nearest(str(wanted), known)}; there are {', '.join(shown) or 'none'}{more}"
    )


def summary(result: Result) -> dict[str, Any]:
    """What `optsweep show --json` prints; docs/own-model.md describes it. Keys are only ever added."""
    columns, rows = result.table
    return {
        "format": 1,
        "sweeps": list(result.names),
        "report": str(result.page) if result.page else None,
        "note": result.note,
        "partial": result.partial,
        "verdict": list(result.verdicts),
        "caveats": list(result.caveats),
        "groups": [_group(held) for held in result.content["groups"]],
        "best": [_best(arm) for group in result.groups for arm in group.arms],
        "table": {"columns": list(columns), "rows": [list(row) for row in rows]},
    }


_OF_COMPARISON = ("candidate", "baseline", "outcome", "sentence", "paired_t", "p_holm", "over", "searches")


def _group(group: Content) -> dict[str, Any]:
    return {
        "title": group["title"],
        "baseline": group["baseline"],
        "headline": group["headline"],
        "conditions": list(group.get("conditions", ())),
        "arms": [
            {key: arm[key] for key in ("name", "label", "test_loss", "val_loss", "test_metric")}
            for arm in group["arms"]
        ],
        "comparisons": [{key: held.get(key) for key in _OF_COMPARISON} for held in group["comparisons"]],
    }


def _best(arm: ArmResult) -> dict[str, Any]:
    try:
        best = best_of(arm)
    except UserError as error:
        return {"arm": arm.name, "label": arm.label, "hyper": None, "settings": [], "provisional": str(error)}
    return {
        "arm": arm.name,
        "label": arm.label,
        "hyper": dict(best.hyper),
        "settings": [dict(setting) for setting in best.settings],
        "provisional": best.provisional,
    }
