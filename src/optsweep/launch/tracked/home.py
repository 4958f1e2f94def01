"""What a sweep's pages in MLflow say: the question when it begins, the verdict when its report is written.

MLflow shows a description above an experiment's runs and on each run's page. What a report states stands in
results.json, which is read here.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optsweep.inference.looks import in_words, searches_in_words
from optsweep.launch.noted import note_written
from optsweep.launch.prepare.description import Description
from optsweep.launch.tracked.curves import spans, summarise_arms
from optsweep.report import Helpers, Report, write_report
from optsweep.report.wording import listed, setting
from optsweep.tracking import links, names, views
from optsweep.tracking.outage import patiently, tracking_outage
from optsweep.tracking.rewrite import beside_others, rewrite_params
from optsweep.tracking.schema import ArmFacts, ArmSheet, SweepPlan
from optsweep.tracking.spool import Spool
from optsweep.tracking.store import runs
from optsweep.tracking.views import FIRST, Common
from optsweep.tracking.writer import Tracker

NOTE_CHARACTERS = 4_500
"""Of a description: MLflow before 3.15 takes 5,000 of an experiment's tag."""

COMMAND_CHARACTERS = 2_000
"""Of a command in it; a longer one stands in the report."""

KEY_CHARACTERS = 200
"""Of a label in the name of a metric, of which MLflow takes 250."""

_MAIN_FIGURES = ("difference", "val_loss", "test_loss")
"""Which one stands in the description, the first that was drawn."""


# -- when a sweep begins -------------------------------------------------------------------------------------------


def show_plan(tracker: Tracker, run_id: str, plan: SweepPlan, tasks: Sequence[str], command: str, *, new: bool) -> None:
    """The plan as the params of the sweep's run; and, of one without a verdict yet, the question as description."""
    rewrite_params(tracker, run_id, plan_params(plan))
    if not new:
        return
    labels = {title.name: title.label for title in plan.arms}
    asked = question(list(labels.values()), labels.get(plan.baseline, ""), tasks)
    parts = [f"**{_escaped(asked)}**", budget(plan), "The verdict follows when the sweep is complete.", _code(command)]
    said = "\n\n".join(filter(None, parts))
    _describe(tracker, run_id, said, said)


def show_views(tracker: Tracker, common: Common) -> None:
    """Prepare MLflow's views of the sweep, unless these are there. Who knows no axes leaves those of its report."""
    held = tracker.client.get_experiment(tracker.experiment_id).tags
    for key, value in views.tags(common).items():
        before = held.get(key, "")
        if before != value and (common.spans or not views.same_but_for_axes(before, value)):
            _tag(tracker, key, value)


def prepare_views(tracking_uri: str, sweep: str) -> None:
    """Views of a sweep that an earlier version ran."""
    tracker = Tracker(tracking_uri, sweep)
    found = runs(tracker.client, tracker.experiment_id, f"tags.`{names.KIND}` = 'arm'")
    show_views(tracker, of_sheets([tracker.arm_sheet(str(run.info.run_id)) for run in found]))


def in_common(arms: Sequence[tuple[ArmFacts | None, Iterable[str]]]) -> Common:
    """What arms have in common, by their facts and the keys that each searches in a range."""
    facts = next((facts for facts, _ in arms if facts is not None), None)
    searched = [list(keys) for _, keys in arms if keys]
    shared = tuple(key for key in (searched[0] if searched else []) if all(key in keys for keys in searched))
    if facts is None:
        return Common("accuracy", searched=shared)
    return Common(facts.metric, facts.loss_unit, facts.decides, shared)


def of_known(known: Sequence[Description]) -> Common:
    """The same, of arms as their planner knows them."""
    ranges = [[key for key, found in its.space.dimensions.items() if found.number is not None] for its in known]
    return in_common([(its.facts, keys) for its, keys in zip(known, ranges, strict=True)])


def of_sheets(sheets: Sequence[ArmSheet | None]) -> Common:
    """The same, of arms as their runs have them."""
    return in_common([(sheet.facts, sheet.space) for sheet in sheets if sheet is not None])


def question(labels: Sequence[str], baseline: str, tasks: Sequence[str]) -> str:
    """What a sweep asks, in a sentence."""
    where = f" on {listed(list(dict.fromkeys(tasks)))}" if tasks else ""
    others = [label for label in labels if label != baseline]
    if not others or not baseline:
        return f"How well does {listed(list(labels))} do{where}?"
    if len(others) <= 3:
        return f"{'Is' if len(others) == 1 else 'Are'} {listed(others)} better than {baseline}{where}?"
    return f"Which of {len(others)} arms is better than {baseline}{where}?"


def budget(plan: SweepPlan) -> str:
    """How much every arm gets."""
    times = f"{searches_in_words(plan.repeats)}, each " if plan.repeats != 1 else ""
    seeds = in_words(plan.confirm.seeds)
    return f"{times}{plan.search.trials} search trials and {seeds} for each of {len(plan.arms)} arms."


def plan_params(plan: SweepPlan) -> dict[str, object]:
    """A plan as params."""
    labels = {title.name: title.label for title in plan.arms}
    return {
        "arms": len(plan.arms),
        "baseline": labels.get(plan.baseline, plan.baseline),
        "search.trials": plan.search.trials,
        "search.sampler": plan.search.sampler,
        "search.pruner": plan.search.pruner,
        "confirm.seeds": plan.confirm.seeds,
        "sweep.repeats": plan.repeats,
        "sweep.seed": plan.seed,
    }


# -- when its report is written ------------------------------------------------------------------------------------


def show_report(tracking_uri: str, sweep: str, folder: Path, *, curves: bool) -> None:
    """Let the sweep's pages say what its report in `folder` does; `curves` too, unless the sweep has just done that."""
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    tracker = Tracker(tracking_uri, sweep)
    run_id = tracker.sweep_run()
    arms = [arm for group in content["groups"] for arm in group["arms"]]
    if curves:
        summarise_arms(tracker, {arm["name"]: arm["run_id"] for arm in arms})
    said = [description(content, tracker.experiment_id, figure=shown) for shown in (True, False)]
    _describe(tracker, run_id, *said)
    _log(tracker, run_id, verdict_metrics(content))
    outcomes = _outcomes(content)
    for arm in arms:
        rewrite_params(tracker, arm["run_id"], chosen_params(arm))
        compared = _numbers(_comparison_of(content, arm["name"]))
        _log(tracker, arm["run_id"], {f"verdict/{key}": value for key, value in compared.items()} | costs(arm))
        tracker.set_tags(arm["run_id"], {names.OUTCOME: outcomes.get(arm["name"], "not compared")})
    common = of_sheets([tracker.arm_sheet(arm["run_id"]) for arm in arms])
    best = [arm["run_id"] for arm in sorted(arms, key=_result)[:FIRST]]
    show_views(tracker, replace(common, spans=tuple(spans(tracker, best, common.drawn))))


def written_and_shown(
    tracking_uri: str,
    storage: str,
    sweeps: Sequence[str],
    folder: Path,
    helped: Helpers | None = None,
    *,
    pdf: bool = False,
    own: bool = False,
) -> Report:
    """Write a report; that of one sweep is shown on the sweep's pages too, which waits for a store that is busy.

    `own`: where the sweep's own command looks for it, and so noted as if that had written it.
    """
    report = write_report(tracking_uri, sweeps, folder, helped=helped, pdf=pdf)
    if len(set(sweeps)) == 1:
        outage = tracking_outage(tracking_uri, Spool.of(tracking_uri, storage, sweeps[0]).folder)
        patiently(lambda: show_report(tracking_uri, sweeps[0], folder, curves=True), outage)
        if own and not report.partial:
            note_written(tracking_uri, storage, sweeps[0], report.index)
    return report


def description(content: Mapping[str, Any], experiment_id: str, *, figure: bool = True) -> str:
    """Markdown: question, verdict, main figure, where the report and the prepared views are, command.

    Not the figure on the page of a run, which is as wide then as MLflow makes it.
    """
    (sweep,) = content["sweeps"]
    labels = {title["name"]: title["label"] for title in sweep["plan"]["arms"]}
    tasks = [str(group["setting"].get("task") or group["title"]) for group in content["groups"]]
    asked = question(list(labels.values()), labels.get(sweep["plan"]["baseline"], ""), tasks)
    said = _escaped(" ".join(content["verdicts"]))
    drawn = _figure(content, sweep["run_id"]) if figure else ""
    rest = [drawn, _whereabouts(sweep["run_id"], experiment_id), _code(sweep["command"])]
    begin = f"**{_escaped(asked)}**"
    room = NOTE_CHARACTERS - sum(map(len, [begin, *rest])) - 20
    if len(said) > room:
        said = said[: max(room, 0)].rpartition(" ")[0] + " …"
    return "\n\n".join(filter(None, [f"{begin} {said}", *rest]))  # MLflow shows one line until one asks for more


def verdict_metrics(content: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of every comparison; named by candidate where there are several."""
    compared = [(group, found) for group in content["groups"] for found in group["comparisons"]]
    metrics: dict[str, float] = {}
    for group, found in compared:
        labels = {arm["name"]: arm["label"] for arm in group["arms"]}
        task = [group["title"]] if len(content["groups"]) > 1 else []
        whose = " ".join([*task, labels[found["candidate"]]]) if len(compared) > 1 else "verdict"
        metrics |= {f"{_key(whose)}/{key}": value for key, value in _numbers(found).items()}
    return metrics


def chosen_params(arm: Mapping[str, Any]) -> dict[str, str]:
    """The chosen setting, by key; of several searches one after the other, in their order."""
    held = [found for found in (arm["chosen"], *arm["chosen_again"]) if found is not None]
    keys = dict.fromkeys(key for found in held for key in (*found["params"], *found["choices"]))
    settings = [{**found["params"], **found["choices"]} for found in held]
    return {key: ", ".join(_word(found[key]) for found in settings if key in found) for key in keys}


def costs(arm: Mapping[str, Any]) -> dict[str, float]:
    """What an arm takes."""
    found = {
        names.MS_PER_STEP: (arm["timing"] or {}).get("ms_per_step"),
        names.STATE_BYTES: arm["state_bytes"],
        names.TRAIN_SECONDS: arm["run_seconds"],
    }
    return dict(_finite(found))


def _numbers(found: Mapping[str, Any] | None) -> dict[str, float]:
    """A comparison's numbers, as far as there are any."""
    if found is None:
        return {}
    test, steps = found["paired_t"] or {}, found["steps_ratio"] or {}
    numbers = {
        "difference": test.get("mean"),
        "difference_low": test.get("low"),
        "difference_high": test.get("high"),
        "p": found["p_holm"],
        "steps_ratio": steps.get("estimate"),
        "time_ratio": found["time_ratio"],
    }
    return dict(_finite(numbers))


def _finite(numbers: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Infinity is a text in results.json."""
    for key, value in numbers.items():
        if isinstance(value, (int, float)) and math.isfinite(value):
            yield key, float(value)


def _result(arm: Mapping[str, Any]) -> float:
    """By what MLflow's list of arms is sorted."""
    found = (arm["test_loss"] or {}).get("estimate")
    return float(found) if isinstance(found, (int, float)) else math.inf


def _comparison_of(content: Mapping[str, Any], arm: str) -> Mapping[str, Any] | None:
    compared = [found for group in content["groups"] for found in group["comparisons"]]
    return next((found for found in compared if found["candidate"] == arm), None)


def _outcomes(content: Mapping[str, Any]) -> dict[str, str]:
    """By arm, what its comparison came to."""
    found = {held["candidate"]: held["outcome"] for group in content["groups"] for held in group["comparisons"]}
    return {group["baseline"]: "baseline" for group in content["groups"]} | found


# -- their parts ---------------------------------------------------------------------------------------------------


def _describe(tracker: Tracker, run_id: str, of_experiment: str, of_run: str) -> None:
    _tag(tracker, names.NOTE, of_experiment[:NOTE_CHARACTERS])
    tracker.set_tags(run_id, {names.NOTE: of_run})


def _tag(tracker: Tracker, key: str, value: str) -> None:
    """Set a tag of the experiment."""
    beside_others(partial(tracker.client.set_experiment_tag, tracker.experiment_id, key, value))


def _log(tracker: Tracker, run_id: str, metrics: Mapping[str, float]) -> None:
    """Those that are new or have changed: a number that was said before has a later one behind it."""
    held, now = tracker.client.get_run(run_id).data.metrics, int(time.time() * 1000)
    tracker.log_points(run_id, [(key, value, now, 0) for key, value in metrics.items() if held.get(key) != value])


def _figure(content: Mapping[str, Any], run_id: str) -> str:
    drawn = {figure["name"]: figure for figure in content["figures"]}
    found = [drawn[name] for wanted in _MAIN_FIGURES for name in drawn if name == wanted or name.endswith(f"-{wanted}")]
    if not found:
        return ""
    path = quote(f"report/figures/{found[0]['name']}.png", safe="")
    return f"![{_escaped(found[0]['title'])}](get-artifact?path={path}&run_uuid={run_id})"


def _whereabouts(run_id: str, experiment_id: str) -> str:
    report = links.artifact_page(experiment_id, run_id, "report/index.html").lstrip("/")
    shown = [f"[{key}]({links.sweep_page(experiment_id, key).lstrip('/')})" for key in views.KEYS]
    return f"[The report]({report}) · charts: {', '.join(shown)}"


def _code(command: str) -> str:
    return f"```\n{_folded(command)}\n```" if 0 < len(command) <= COMMAND_CHARACTERS else ""


def _folded(command: str) -> str:
    """A command over several lines, which would make the whole page as wide as it is long."""
    try:
        words = [shlex.quote(word) for word in shlex.split(command)]
    except ValueError:
        return command
    lines = textwrap.wrap(
        " ".join(word.replace(" ", "\0") for word in words), 76, break_long_words=False, break_on_hyphens=False
    )
    return " \\\n  ".join(lines).replace("\0", " ")


def _escaped(text: str) -> str:
    """As Markdown shows it: names of arms and tasks have underscores in them, and may have anything."""
    return re.sub(r"([_*\[\]`])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def _word(value: object) -> str:
    return setting(value) if isinstance(value, float) else str(value)


def _key(label: str) -> str:
    """A label as MLflow takes it in the name of a metric."""
    kept = re.sub(r"[^\w.\- :]", " ", label.replace("=", ":").replace("λ", "lambda"))
    return " ".join(kept.split())[:KEY_CHARACTERS].rstrip()
