"""Prepared views of a sweep in MLflow's UI: which runs, which charts in which order, which columns.

MLflow keeps a view as a tag of the experiment, lists it by its name under "Views", and opens it where an address asks
for it (links.py). What is in one is MLflow's own state of that page, as version 3.17 writes and reads it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optsweep.tracking import names
from optsweep.train.trial import Phase

FIRST = 10
"""Runs that MLflow draws where it doesn't draw all."""

_COMPRESSED = "deflate;"
_ENDS = (names.low, names.high)


@dataclass(frozen=True)
class Common:
    """What the arms of a sweep have in common for people: names of curves, units, searched keys."""

    metric: str
    unit: str = ""
    decides: str = ""  # what settings are chosen by, if not the loss
    searched: tuple[str, ...] = ()  # hyperparameters that every arm searches in a range
    spans: tuple[tuple[str, float, float], ...] = ()  # of curves that are there: where an axis for the arms' ends

    @property
    def objective(self) -> str:
        """The curve that decides."""
        return names.VAL_OBJECTIVE if self.decides else names.VAL_LOSS

    @property
    def drawn(self) -> tuple[str, ...]:
        """Of the curves of an arm those with an interval, by what they are shown for."""
        return (*dict.fromkeys((self.objective, names.VAL_LOSS)), names.val_metric(self.metric), names.TRAIN_LOSS)

    @property
    def tested(self) -> str:
        """What verdicts are stated on."""
        return names.TEST_OBJECTIVE if self.decides else names.TEST_LOSS

    @property
    def curves(self) -> list[str]:
        """The keys that runs of the sweep may have."""
        losses = [names.VAL_LOSS, names.VAL_OBJECTIVE, names.TEST_LOSS, names.TEST_OBJECTIVE, names.TRAIN_LOSS]
        means = [*losses, names.val_metric(self.metric), names.test_metric(self.metric)]
        return [*means, *(end(key) for key in means for end in _ENDS), *names.ASIDE]

    @property
    def loss(self) -> str:
        """A title's words for what decides, with its unit."""
        return self.decides or self.aside

    @property
    def aside(self) -> str:
        """A title's words for the loss."""
        return f"loss ({self.unit})" if self.unit else "loss"

    def banded(self, key: str, title: str) -> Chart:
        """The curve of a mean with both ends of its interval, on the axis that is known of it."""
        found = {of: (low, high) for of, low, high in self.spans}
        return _line(key, f"{title}: {_MEAN}", [end(key) for end in _ENDS], found.get(key))


Chart = Mapping[str, Any]


@dataclass(frozen=True)
class ChartSection:
    """Charts under one heading."""

    name: str
    charts: tuple[Chart, ...]
    columns: int = 2


@dataclass(frozen=True)
class View:
    """One prepared view."""

    key: str
    name: str
    runs: str  # MLflow's condition
    order: tuple[str, bool]  # column, and whether it ascends
    sections: tuple[ChartSection, ...]
    columns: tuple[str, ...]
    group_by: str = ""  # a tag
    all_runs: bool = True  # in the charts; else the first ten (FIRST)

    def state(self, known: Iterable[str] = ()) -> dict[str, Any]:
        """As MLflow's page has it. Of `known` curves that no chart shows it would make a chart by itself."""
        sections, charts, shown = [], [], set[str]()
        for place, section in enumerate(self.sections):
            own = f"{self.key}-{place}"
            held = {"uuid": own, "name": section.name, "columns": section.columns, "cardHeight": 400}
            sections.append({**held, "display": True, "isReordered": True, "deleted": False, "isGenerated": False})
            for number, chart in enumerate(section.charts):
                charts.append(_card(chart, f"{own}-{number}", own))
                shown.add(chart.get("metricKey", ""))
        charts += [
            _card({**_line(key, key), "deleted": True}, f"{self.key}-without-{number}", f"{self.key}-0")
            for number, key in enumerate(sorted(set(known) - shown))
        ]
        grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": self.group_by}]}
        return {
            "searchFilter": self.runs,
            "orderByKey": self.order[0],
            "orderByAsc": self.order[1],
            "selectedColumns": list(self.columns),
            "columnOrder": list(self.columns),
            "runsHiddenMode": "SHOW_ALL" if self.all_runs else "FIRST_10_RUNS",
            "compareRunCharts": charts,
            "compareRunSections": sections,
            "isAccordionReordered": True,
            "hideEmptyCharts": True,
            "groupBy": grouped if self.group_by else None,
            "useGroupedValuesInCharts": bool(self.group_by),
        }


def as_tag(view: View, known: Iterable[str], made: int) -> str:
    """The value of the view's tag: its name, when it was made in milliseconds, and its state, compressed."""
    state = json.dumps(view.state(known), separators=(",", ":"))
    packed = _COMPRESSED + base64.b64encode(zlib.compress(state.encode(), 9)).decode()
    return json.dumps({"name": view.name, "createdAt": made, "updatedAt": made, "state": packed})


def state_of(tag: str) -> dict[str, Any]:
    """What a view's tag holds."""
    packed = json.loads(tag)["state"].removeprefix(_COMPRESSED)
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return found


def same_but_for_axes(one: str, other: str) -> bool:
    """Whether tags hold the same view, whatever the ends of its axes; false where one was made by somebody else."""
    try:
        return _without_axes(one) == _without_axes(other)
    except (ValueError, LookupError, TypeError, AttributeError, zlib.error):
        return False


def _without_axes(tag: str) -> dict[str, Any]:
    state = state_of(tag)
    charts = [{key: value for key, value in chart.items() if key != "range"} for chart in state["compareRunCharts"]]
    return {**state, "compareRunCharts": charts}


def tags(common: Common) -> dict[str, str]:
    """All views as tags of the experiment. MLflow lists the newest first, so that each is older than the one before."""
    views = [make(common) for make in _VIEWS.values()]
    known = common.curves
    return {names.VIEW + view.key: as_tag(view, known, len(views) - place) for place, view in enumerate(views)}


# -- the views -----------------------------------------------------------------------------------------------------


def _verdict(common: Common) -> View:
    """Arms: what a reader of the report looks at, in its order."""
    decides = common.banded(common.objective, f"Validation {common.loss}")
    aside = (common.banded(names.VAL_LOSS, f"Validation {common.aside}"),) if common.decides else ()
    score = common.banded(names.val_metric(common.metric), f"Validation {common.metric}")
    train = common.banded(names.TRAIN_LOSS, f"Training {common.aside}")
    shown = (common.tested, *(end(common.tested) for end in _ENDS))
    return View(
        "verdict",
        "Verdict: arms, mean and 95 % interval",
        _kind("arm"),
        (_metric(common.tested), True),
        (
            ChartSection("Validation loss", (decides, *aside), columns=1),
            ChartSection(f"Test {common.loss} and difference", (_bars(common.tested), _bars(names.DIFFERENCE))),
            ChartSection("Learning rate", (_LR_CURVE,), columns=1),
            ChartSection("Score", (score,), columns=1),
            ChartSection("Training", (train, *_INSIDE)),
            ChartSection(_COST_OF, _COSTS),
        ),
        (*map(_metric, shown), *_LR, _tag(names.OUTCOME), *_DEAR),
        all_runs=False,
    )


def _search(common: Common) -> View:
    """Search trials: what was tried, and how it ended."""
    keys = [names.LOGARITHMS.get(key, key) for key in common.searched or ("lr",)]
    tried = tuple(_scatter(key, common.objective) for key in keys[:4])
    together = (ChartSection("All that was searched", (_parallel(keys, common.objective),), columns=1),)
    return View(
        "search",
        "Search: settings tried against loss",
        _phase(Phase.SEARCH),
        (_metric(common.objective), True),
        (
            ChartSection("Loss at the end against what was tried", tried, columns=min(len(tried), 2)),
            *(together if len(keys) > 1 else ()),
            ChartSection("Validation loss", (_line(common.objective, f"Validation {common.loss}"),), columns=1),
            ChartSection("Learning rate", (_LR_CURVE,), columns=1),
            ChartSection("Training", (_line(names.TRAIN_LOSS, f"Training {common.aside}"), *_INSIDE)),
        ),
        (_tag(names.LABEL), _metric(common.objective), *(_param(key) for key in common.searched), *_ENDED),
    )


def _seeds(common: Common) -> View:
    """Confirm trials by arm: mean over runs, band from the lowest to the highest, which MLflow makes of a group."""
    band = "mean over runs, lowest to highest"
    return View(
        "seeds",
        "Seeds: confirm trials of each arm",
        _phase(Phase.CONFIRM),
        (_tag(names.LABEL), True),
        (
            ChartSection("Validation loss", (_line(common.objective, f"Validation {common.loss}: {band}"),), columns=1),
            ChartSection(f"Test {common.loss}: mean over runs", (_bars(common.tested),), columns=1),
            ChartSection("Learning rate", (_LR_CURVE,), columns=1),
            ChartSection("Score", (_line(names.val_metric(common.metric), f"{common.metric}: {band}"),), columns=1),
            ChartSection("Training", (_line(names.TRAIN_LOSS, f"Training {common.aside}: {band}"), *_INSIDE)),
        ),
        (_tag(names.LABEL), _metric(common.tested), _param("seed"), *_LR, *_ENDED),
        group_by=names.LABEL,
    )


def _cost(common: Common) -> View:
    """Arms: what a step and a run take."""
    against = _scatter(names.MS_PER_STEP, common.tested, "METRIC")
    return View(
        "cost",
        "Cost: time and memory of each arm",
        _kind("arm"),
        (_metric(names.MS_PER_STEP), True),
        (ChartSection(_COST_OF, _COSTS), ChartSection("Test loss against time per step", (against,), columns=1)),
        (_tag(names.OUTCOME), _metric(common.tested), *_DEAR),
    )


_VIEWS: Mapping[str, Callable[[Common], View]] = {
    "verdict": _verdict,
    "search": _search,
    "seeds": _seeds,
    "cost": _cost,
}
KEYS = tuple(_VIEWS)
"""By which an address asks for one."""


# -- their parts ---------------------------------------------------------------------------------------------------


def _kind(kind: str) -> str:
    return f"tags.`{names.KIND}` = '{kind}'"


def _phase(phase: Phase) -> str:
    return f"tags.`{names.PHASE}` = '{phase.value}'"


def _metric(key: str) -> str:
    return f"metrics.`{key}`"


def _param(key: str) -> str:
    return f"params.`{key}`"


def _tag(key: str) -> str:
    return f"tags.`{key}`"


def _card(chart: Chart, uuid: str, section: str) -> dict[str, Any]:
    same = {"deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    return {**same, **chart, "uuid": uuid, "metricSectionId": section}


def _line(key: str, title: str, more: Iterable[str] = (), span: tuple[float, float] | None = None) -> Chart:
    curves = {"metricKey": key, "selectedMetricKeys": [key, *more], "displayPoints": False}
    axes = {"xAxisKey": "step", "useGlobalXaxisKey": True, "lineSmoothness": 0, "useGlobalLineSmoothing": True}
    ends = {"range": {"yMin": span[0], "yMax": span[1]}} if span else {}
    return {"type": "LINE", **curves, **axes, **ends, "displayName": title, **_NAMED}


def _bars(key: str) -> Chart:
    return {"type": "BAR", "metricKey": key}  # which MLflow calls by its key, whatever its name


def _scatter(key: str, loss: str, kind: str = "PARAM") -> Chart:
    return {"type": "SCATTER", "xaxis": {"key": key, "type": kind}, "yaxis": {"key": loss, "type": "METRIC"}}


def _parallel(keys: Sequence[str], loss: str) -> Chart:
    return {"type": "PARALLEL", "selectedParams": list(keys), "selectedMetrics": [loss], "showAllRuns": True}


_MEAN = "mean and its 95 % interval"  # over seeds, or over searches where there are several
_NAMED: Chart = {"nodeLevelSystemMetricConfiguration": {"metric": "", "type": ""}}
"""Without it MLflow calls a chart by the keys of its curves, whatever its name."""

_LR_CURVE = _line(names.LR, "Learning rate applied")
_INSIDE = (
    _line(names.GRAD_NORM, "Norm of the gradient before clipping"),
    _line(names.UPDATE_RATIO, "Update's norm relative to the parameters'"),
)
_COST_OF = "Cost: ms/step, state bytes, run seconds"  # as long as a heading may be at 1280 pixels
_COSTS = (_bars(names.MS_PER_STEP), _bars(names.STATE_BYTES), _bars(names.TRAIN_SECONDS))
_LR = (_param("lr"),)
_DEAR = (_metric(names.MS_PER_STEP), _metric(names.STATE_BYTES))
_ENDED = (_tag(names.STATUS), _tag(names.ERROR), "attributes.`Duration`")
