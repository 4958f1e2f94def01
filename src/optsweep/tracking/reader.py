"""Reads a sweep from MLflow into plain data; nothing else of the report knows MLflow."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray

from optsweep.inference.looks import AUTO, LOOKS, Seeds
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.paths import read_path, recorded_surface
from optsweep.train.trial import Phase

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

LEARNING_RATE = "lr"
WEIGHT_DECAY = "weight_decay"
_PAGE = 1_000
_MLFLOW_INFINITY = 1.7e308  # MLflow stores infinity as the largest float


class SweepNotFound(ValueError):  # noqa: N818 – a mistake of the user, said in one line; nothing is broken
    """There is no such sweep in the store; the message names the nearest."""


@dataclass(frozen=True)
class Curve:
    """A metric against optimizer steps done."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class TrialRecord:
    """One training run."""

    run_id: str
    arm: str
    phase: Phase
    slot: int
    seed: int
    origin: str
    status: Status
    error: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]  # last values
    train_seconds: float | None
    state_bytes: float | None
    lanes: int
    curves: Mapping[str, Curve] = field(default_factory=dict)
    path: NDArray[np.float64] | None = None  # [steps, 2], of a trial on a surface that figures draw

    def number(self, key: str) -> float | None:
        """A hyperparameter as a number, or None."""
        return _number(self.params.get(key))

    def metric(self, key: str) -> float | None:
        """A metric's last value; None if it is missing or NaN."""
        value = self.metrics.get(key)
        return None if value is None or math.isnan(value) else value


@dataclass(frozen=True)
class RangeRecord:
    """The suggested range of a searched hyperparameter."""

    low: float
    high: float
    log: bool
    source: str


@dataclass(frozen=True)
class Chosen:
    """The setting that the search ended on."""

    params: Mapping[str, float]  # of the keys searched in a range
    mean: float | None
    n: int
    bracketed: Mapping[str, Mapping[str, bool]]
    searched: Mapping[str, tuple[float, float]]
    slots: tuple[int, ...]
    choices: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)  # of the other keys


@dataclass(frozen=True)
class Timing:
    """Milliseconds per step of the dedicated timing pass: median and quartiles of `n` measurements."""

    ms_per_step: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ArmRecord:
    """One combination of the sweep, with its trials in order of phase and slot."""

    name: str
    label: str
    run_id: str
    choices: Mapping[str, str]
    fingerprint: str
    space: Mapping[str, RangeRecord]
    fixed: Mapping[str, Any]
    chosen: Chosen | None
    timing: Timing | None
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    surface: str = ""  # of a landscape whose paths are recorded

    def of(self, phase: Phase) -> list[TrialRecord]:
        """The trials of one phase."""
        return [trial for trial in self.trials if trial.phase is phase]


@dataclass(frozen=True)
class SweepRecord:
    """Everything that the store holds of one sweep."""

    name: str
    experiment_id: str
    run_id: str | None
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    command: str
    sessions: tuple[Mapping[str, Any], ...]
    arms: tuple[ArmRecord, ...]

    def planned(self, phase: Phase) -> int:
        """How many trials the plan asks of each arm in a phase; with confirm.seeds=auto at least."""
        if phase is Phase.CONFIRM:
            return self.looks[0] if self.seeds == AUTO else self.seeds
        return int(_number(self.plan.get("search", {}).get("trials")) or 0)

    @property
    def seeds(self) -> Seeds:
        """Confirm seeds of each arm: their number, or `auto`."""
        seeds = self.plan.get("confirm", {}).get("seeds")
        return AUTO if seeds == AUTO else int(_number(seeds) or 0)

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which confirm.seeds=auto has looked or will; none where it was never asked for."""
        confirm = self.plan.get("confirm", {})
        return tuple(confirm.get("looks") or (LOOKS if confirm.get("seeds") == AUTO else ()))

    @property
    def absent(self) -> tuple[str, ...]:
        """Arms of the plan that haven't started."""
        started = {arm.name for arm in self.arms}
        return tuple(name for name in self.plan.get("arms", ()) if name not in started)


def load_sweep(client: MlflowClient, name: str, experiment_id: str) -> SweepRecord:
    """Read sweep `name`: tags, params and last metrics of every run, curves of those trials that figures draw."""
    runs = list(_all_runs(client, experiment_id))
    by_kind: dict[str, list[Run]] = {"sweep": [], "arm": [], "trial": []}
    for run in runs:
        by_kind.get(run.data.tags.get(names.KIND, ""), []).append(run)
    if not by_kind["sweep"] and not by_kind["arm"]:
        raise SweepNotFound(f"experiment '{name}' exists in the store but is no sweep: it has no runs of optsweep")
    sweep_run = by_kind["sweep"][0] if by_kind["sweep"] else None
    tags = sweep_run.data.tags if sweep_run else {}
    plan = _json(tags, names.PLAN, {})
    trials: dict[str, list[TrialRecord]] = {}
    for run in by_kind["trial"]:
        if run.data.tags.get(names.PHASE) == names.SUPERSEDED:
            continue
        trial = _trial(run)
        trials.setdefault(trial.arm, []).append(trial)
    arms = [_arm(run, trials.get(run.data.tags.get(names.ARM, ""), [])) for run in by_kind["arm"]]
    order = {arm: place for place, arm in enumerate(plan.get("arms", ()))}
    arms.sort(key=lambda arm: (order.get(arm.name, len(order)), _natural(arm.name)))
    return SweepRecord(
        name=name,
        experiment_id=experiment_id,
        run_id=sweep_run.info.run_id if sweep_run else None,
        plan=plan,
        environment=_json(tags, names.ENVIRONMENT, {}),
        command=tags.get(names.COMMAND, ""),
        sessions=tuple(_json(tags, names.SESSIONS, [])),
        arms=tuple(_with_curves(client, arm) for arm in arms),
    )


def _natural(name: str) -> list[tuple[str, float]]:
    """A sort key by which lr=2.1 comes before lr=10."""
    parts = re.split(r"(\d+\.?\d*(?:e[-+]?\d+)?)", name)
    return [(text, float(digits)) for text, digits in zip(parts[::2], [*parts[1::2], "0"], strict=True)]


def check_store(tracking_uri: str) -> None:
    """Refuse a local database that isn't there: opening it would create an empty one."""
    parsed = urlparse(tracking_uri)
    if parsed.scheme.startswith("sqlite") and parsed.path not in ("", "/:memory:"):
        path = Path(unquote(parsed.path[1:]))
        if not path.is_file():
            raise SweepNotFound(f"tracking.uri: there is no store at {path}; run a sweep first, or name another store")


def find_experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment that holds sweep `name`. Raises SweepNotFound, which names the nearest."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "active":
        return str(experiment.experiment_id)
    if experiment is not None:
        raise SweepNotFound(
            f"sweep '{name}' was deleted; `mlflow experiments restore -x {experiment.experiment_id}` brings it back"
        )
    known = [found.name for found in _pages(lambda token: client.search_experiments(page_token=token))]
    known = sorted(found for found in known if found != "Default")
    if not known:
        raise SweepNotFound(f"there is no sweep '{name}': the store is empty")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    listed = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(known[:8])}"
    raise SweepNotFound(f"there is no sweep '{name}'; {listed}")


def _pages(search: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def _all_runs(client: MlflowClient, experiment_id: str) -> Iterable[Run]:
    found = _pages(lambda token: client.search_runs([experiment_id], max_results=_PAGE, page_token=token))
    return sorted(found, key=lambda run: (run.info.start_time or 0, run.info.run_id))


def _trial(run: Run) -> TrialRecord:
    tags = run.data.tags
    return TrialRecord(
        run_id=run.info.run_id,
        arm=tags.get(names.ARM, ""),
        phase=_enum(Phase, tags.get(names.PHASE), Phase.SEARCH),
        slot=int(_number(tags.get(names.SLOT)) or 0),
        seed=int(_number(tags.get(names.SEED)) or 0),
        origin=tags.get(names.ORIGIN, ""),
        status=_enum(Status, tags.get(names.STATUS), Status.RUNNING),
        error=tags.get(names.ERROR, ""),
        params=dict(run.data.params),
        metrics={key: _infinity(value) for key, value in run.data.metrics.items()},
        train_seconds=_number(tags.get(names.TRAIN_SECONDS)),
        state_bytes=_number(tags.get(names.STATE_BYTES)),
        lanes=int(_number(tags.get(names.LANES)) or 1),
    )


def _arm(run: Run, trials: Sequence[TrialRecord]) -> ArmRecord:
    tags = run.data.tags
    name = tags.get(names.ARM, run.info.run_id)
    unreadable = [key for key in _ARM_JSON if not _is_json(tags.get(key, "null"))]
    timing = _json(tags, names.TIMING, None)
    chosen = _json(tags, names.CHOSEN, None)
    return ArmRecord(
        name=name,
        label=tags.get(names.LABEL) or name,
        run_id=run.info.run_id,
        choices={key: str(value) for key, value in _json(tags, names.CHOICES, {}).items()},
        fingerprint=tags.get(names.FINGERPRINT, ""),
        space={key: _range(value) for key, value in _json(tags, names.SPACE, {}).items()},
        fixed=_json(tags, names.FIXED, {}),
        chosen=_chosen(chosen) if chosen else None,
        timing=_timing(timing) if timing else None,
        facts=_json(tags, names.FACTS, {}),
        warnings=(*_json(tags, names.WARNINGS, []), *(f"The tag {key} could not be read." for key in unreadable)),
        trials=tuple(_one_per_slot(trials)),
        surface=recorded_surface(run.data.params),
    )


_ARM_JSON = (names.CHOICES, names.SPACE, names.FIXED, names.CHOSEN, names.TIMING, names.FACTS, names.WARNINGS)


def _one_per_slot(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """A slot that ran twice counts once: the run that has a result, else the last one tried."""
    chosen: dict[tuple[str, int], TrialRecord] = {}
    for trial in trials:
        key = (trial.phase.value, trial.slot)
        held = chosen.get(key)
        if held is None or held.status in (Status.CRASHED, Status.RUNNING):
            chosen[key] = trial
    return [chosen[key] for key in sorted(chosen, key=lambda key: (key[0] != Phase.SEARCH.value, key[1]))]


def _range(value: Mapping[str, Any]) -> RangeRecord:
    low, high = float(value["low"]), float(value["high"])
    return RangeRecord(low, high, bool(value.get("log", False)), str(value.get("source", "")))


def _chosen(value: Mapping[str, Any]) -> Chosen:
    return Chosen(
        params={key: float(number) for key, number in value.get("params", {}).items()},
        mean=_number(value.get("mean")),
        n=int(value.get("n", 0)),
        bracketed=value.get("bracketed", {}),
        searched={key: (float(low), float(high)) for key, (low, high) in value.get("searched", {}).items()},
        slots=tuple(int(slot) for slot in value.get("slots", ())),
        choices=value.get("choices", {}),
    )


def _timing(value: Mapping[str, Any]) -> Timing:
    median = float(value["ms_per_step"])
    low, high = (float(value.get(key, median)) for key in ("low", "high"))
    return Timing(median, low, high, int(value.get("n", 0)))


def _with_curves(client: MlflowClient, arm: ArmRecord) -> ArmRecord:
    """Curves of the confirm trials, or of the chosen (else best) search trials where there are none yet.

    All other trials need only their last values: reading every history would take minutes for thousands of trials.
    """
    drawn = {trial.run_id for trial in arm.of(Phase.CONFIRM)}
    if not drawn and arm.chosen:
        drawn = {trial.run_id for trial in arm.of(Phase.SEARCH) if trial.slot in arm.chosen.slots}
    if not drawn and arm.trials:
        best = min(arm.trials, key=lambda t: (t.status is not Status.FINISHED, t.metric(names.VAL_LOSS) or math.inf))
        drawn = {best.run_id}
    # the applied learning rate is the same for all of them, so that of one is enough
    first = min(
        (t for t in arm.trials if t.run_id in drawn and names.LR in t.metrics),
        key=lambda t: (t.status is not Status.FINISHED, t.slot),
        default=None,
    )
    trials = []
    for trial in arm.trials:
        if trial.run_id in drawn:
            keys = (names.VAL_LOSS, names.TRAIN_LOSS, *((names.LR,) if trial is first else ()))
            curves = {key: _curve(client, trial.run_id, key) for key in keys if key in trial.metrics}
            trial = replace(trial, curves=curves)
        trials.append(trial)
    return _with_path(client, replace(arm, trials=tuple(trials)))


def _with_path(client: MlflowClient, arm: ArmRecord) -> ArmRecord:
    """The path of the first confirm seed; no file is asked for unless the arm runs on a surface and records."""
    ended = [trial for trial in arm.of(Phase.CONFIRM) if trial.status in (Status.FINISHED, Status.DIVERGED)]
    if not arm.surface or not ended:
        return arm
    first = min(ended, key=lambda trial: trial.seed)
    path = read_path(client, first.run_id)
    return replace(arm, trials=tuple(replace(t, path=path) if t is first else t for t in arm.trials))


def _curve(client: MlflowClient, run_id: str, key: str) -> Curve:
    """A metric's history by step; of a step that was logged twice (a resumed trial), the last."""
    history = sorted(client.get_metric_history(run_id, key), key=lambda point: (point.step, point.timestamp))
    points = {point.step: _infinity(point.value) for point in history}
    return Curve(np.array(list(points), dtype=np.int64), np.array(list(points.values()), dtype=np.float64))


def _json(tags: Mapping[str, str], key: str, default: Any) -> Any:
    """A tag's value; `default` if it is absent, null, or cut off because it was too long for a tag."""
    text = tags.get(key, "null")
    value = json.loads(text) if _is_json(text) else None
    return default if value is None else value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _infinity(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= _MLFLOW_INFINITY else value


def _enum(kind: Any, value: str | None, default: Any) -> Any:
    return kind(value) if value in set(kind) else default
