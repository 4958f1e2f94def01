"""Every field of the tracking schema, through the real writers into a SQLite store and back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import FileInfo, RunInfo

from optsweep import report
from optsweep.tracking import names, schema, store
from optsweep.tracking.codec import UnreadableError, from_json, to_json
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.names import Status
from optsweep.tracking.reader import load_sweep
from optsweep.tracking.schema import ArmFacts, ArmSheet, ScheduleTrace, SweepSheet, TrialEnd, TrialHead
from optsweep.tracking.sheets import read_sheet, write_sheet
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase, Point, Rung

EXAMPLES = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
LOSSES = st.sampled_from([0.0, -0.0, 1e-300, 2.5, math.inf, -math.inf, math.nan])


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making its tables takes seconds."""
    found = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    store.check(found)
    return found


def strategy(kind: type) -> st.SearchStrategy[Any]:
    """Instances of a dataclass of the schema, every field drawn, defaults or not."""
    if kind is ScheduleTrace:
        pairs = st.lists(st.tuples(st.integers(0, 2**40), st.floats()), max_size=5)
        return pairs.map(lambda held: ScheduleTrace(_array(held, 0, np.int64), _array(held, 1, np.float64)))
    hints = get_type_hints(kind)
    own = {"schema_version": st.just(schema.SCHEMA_VERSION)}
    return st.builds(kind, **{f.name: own.get(f.name, st.from_type(hints[f.name])) for f in fields(kind)})


def _array(held: list[tuple[int, float]], place: int, dtype: type) -> np.ndarray[Any, np.dtype[Any]]:
    return np.array([pair[place] for pair in held], dtype=dtype)


KINDS = [kind for kind in vars(schema).values() if isinstance(kind, type) and is_dataclass(kind)]
for kind in KINDS:
    st.register_type_strategy(kind, strategy)


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where two values differ; NaN equals NaN, and 1 is not 1.0."""
    if type(a) is not type(b) and not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        yield f"{where}: {a!r} ≠ {b!r}"
    elif is_dataclass(a):
        for field in fields(a):
            yield from differences(a.__dict__[field.name], b.__dict__[field.name], f"{where}.{field.name}")
    elif isinstance(a, Mapping):
        if a.keys() != b.keys():
            yield f"{where}: {set(a)} ≠ {set(b)}"
        for key in a.keys() & b.keys():
            yield from differences(a[key], b[key], f"{where}[{key}]")
    elif isinstance(a, tuple):
        if len(a) != len(b):
            yield f"{where}: {len(a)} ≠ {len(b)} items"
        for place, (left, right) in enumerate(zip(a, b, strict=False)):
            yield from differences(left, right, f"{where}[{place}]")
    elif isinstance(a, np.ndarray):
        if a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=True):
            yield f"{where}: {a} ≠ {b}"
    elif a != b and not (isinstance(a, float) and math.isnan(a) and math.isnan(b)):
        yield f"{where}: {a!r} ≠ {b!r}"


# -- sheets --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planner(uri: str) -> Tracker:
    return Tracker(uri, "sheets")


@EXAMPLES
@given(st.from_type(SweepSheet))
def test_every_field_of_a_sweep_s_sheet_comes_back(planner: Tracker, uri: str, sheet: SweepSheet) -> None:
    run = planner.sweep_run()
    planner.write_sheet(run, sheet)
    assert not list(differences(sheet, Tracker(uri, "sheets").sweep_sheet(run)))


@EXAMPLES
@given(st.from_type(ArmSheet))
def test_every_field_of_an_arm_s_sheet_comes_back(planner: Tracker, uri: str, sheet: ArmSheet) -> None:
    run = planner.arm_run("an arm", "")
    planner.write_sheet(run, sheet)
    assert not list(differences(sheet, Tracker(uri, "sheets").arm_sheet(run)))


def test_the_generated_sheets_reach_every_class_of_the_schema() -> None:
    """So that no class stands aside of the round trips above and below."""

    def reached(kind: type) -> Iterator[type]:
        yield kind
        for hint in get_type_hints(kind).values():
            text = repr(hint)
            for other in KINDS:
                if re.search(rf"\b{other.__name__}\b", text) and other is not kind:
                    yield from reached(other)

    found = {kind for root in (SweepSheet, ArmSheet, TrialHead, TrialEnd) for kind in reached(root)}
    assert found == set(KINDS)


def test_json_holds_no_number_that_is_none() -> None:
    sheet = ArmSheet("a", "b", chosen=schema.Chosen({"lr": math.nan}, math.inf, 1, {}, {"lr": (-math.inf, 0.0)}, ()))
    text = json.dumps(to_json(sheet), allow_nan=False)
    back = from_json(ArmSheet, json.loads(text))
    assert not list(differences(sheet, back))


def test_a_new_field_is_ignored_by_an_older_reader_and_absent_from_an_older_file() -> None:
    held = {"name": "a", "label": "b", "invented_later": [1, 2]}
    assert from_json(ArmSheet, held) == ArmSheet("a", "b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": None}, r"ArmSheet\.label"),
        ({"fixed": {"eps": "small"}}, r"ArmSheet\.fixed\.eps"),
        ({"fixed": {"eps": True}}, r"ArmSheet\.fixed\.eps"),
        ({"timing": {"ms_per_step": 1.0, "low": 1.0, "high": 1.0, "n": 2.5}}, r"ArmSheet\.timing"),
        ({"chosen": {"params": {}}}, r"ArmSheet\.chosen"),
        ({"warnings": "one"}, r"ArmSheet\.warnings"),
        ({"space": {"lr": {"low": 1, "high": 2, "log": True}}}, r"ArmSheet\.space\.lr\.source is missing"),
    ],
)
def test_what_is_not_of_its_type_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        from_json(ArmSheet, {"name": "a", "label": "b", **change})


def test_a_sheet_that_can_t_be_replaced_is_still_the_old_one(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(uri, "replaced")
    run = tracker.arm_run("a", "")
    tracker.write_sheet(run, ArmSheet("a", "old"))

    def full(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="full"):
        tracker.write_sheet(run, ArmSheet("a", "new"))
    assert tracker.arm_sheet(run) == ArmSheet("a", "old")


class Server:
    """Keeps artifacts as a tracking server does: out of this machine's sight."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}

    def log_text(self, run_id: str, text: str, file: str) -> None:
        self.held[f"{run_id}/{file}"] = text

    def list_artifacts(self, run_id: str, folder: str) -> list[FileInfo]:
        begin = f"{run_id}/"
        return [FileInfo(key.removeprefix(begin), False, 1) for key in self.held if key.startswith(begin + folder)]

    def download_artifacts(self, run_id: str, file: str, into: str) -> str:
        path = Path(into) / "downloaded"
        path.write_text(self.held[f"{run_id}/{file}"], encoding="utf-8")
        return str(path)


def test_sheets_go_to_a_server_and_come_back() -> None:
    client = cast(MlflowClient, Server())
    run = RunInfo("r", "1", "u", "RUNNING", 0, 0, "active", artifact_uri="mlflow-artifacts:/1/r/artifacts")
    assert read_sheet(client, run, SweepSheet) is None
    write_sheet(client, run, SweepSheet(command="λ"))
    assert read_sheet(client, run, SweepSheet) == SweepSheet(command="λ")
    assert read_sheet(client, run, ArmSheet) is None


# -- trials --------------------------------------------------------------------------------------------------------

HEADS = st.builds(
    TrialHead,
    arm=st.sampled_from(["a", "it's", "λ"]),
    phase=st.sampled_from(Phase),
    slot=st.integers(0, 10**9),
    seed=st.integers(0, 10**9),
    origin=st.sampled_from(["quasi-random", "model", "bracket", "rerun", "chosen", "fixed"]),
    hyper=st.dictionaries(st.sampled_from(["lr", "weight_decay", "beta1"]), st.floats()),
    lanes=st.integers(1, 64),
)
SECONDS, BYTES, REASON = st.floats(0, 1e9), st.integers(0, 2**50), TEXT.map(lambda text: " ".join(text.split()))


@settings(EXAMPLES, max_examples=20)
@given(HEADS, st.sampled_from(End), SECONDS, BYTES, REASON, st.tuples(*[LOSSES] * 6))
def test_every_field_of_a_trial_comes_back(
    planner: Tracker, head: TrialHead, end: End, seconds: float, size: int, reason: str, found: tuple[float, ...]
) -> None:
    sink = AtOnce(planner)
    log = TrialLog(sink, planner.arm_run(head.arm, ""), "a trial", head, "accuracy")
    log.rung(Rung(3, found[0], found[1], (Point(3, found[2], 1e-3, found[3], found[4]),), 1.0, 7, seconds / 2))
    log.end(Outcome(end, 5, found[0], found[1], found[5], found[1], seconds, size, reason))
    data = planner.client.get_run(sink.run_id).data
    assert not list(differences(head, TrialHead.of(data.tags, data.params)))
    back = TrialEnd.of(data.tags, data.params, data.metrics)
    assert back == TrialEnd(Status(end.value), reason, seconds, size)


def test_losses_come_back_zero_and_infinity_included(uri: str) -> None:
    tracker = Tracker(uri, "losses")
    tracker.sweep_run()
    parent = tracker.arm_run("a", "")
    for seed, loss in enumerate([0.0, math.inf, 2.5]):
        head = TrialHead("a", Phase.CONFIRM, seed, seed, "chosen", {"lr": 1e-3})
        log = TrialLog(AtOnce(tracker), parent, "t", head, "accuracy")
        log.rung(Rung(4, loss, 0.0, (Point(4, loss, 0.0, 0.0, 0.0),), 1.0, 0, 1.0))
        log.end(Outcome(End.FINISHED, 4, loss, 0.0, loss, 0.0, 1.0, 0, test_blocks=(loss, 1.5)))
    (arm,) = load_sweep(tracker.client, "losses", tracker.experiment_id).arms
    for trial, loss in zip(arm.trials, [0.0, math.inf, 2.5], strict=True):
        assert trial.metric(names.VAL_LOSS) == trial.metric(names.TEST_LOSS) == loss
        assert trial.curves[names.VAL_LOSS].values.tolist() == [loss]
        assert trial.test_blocks == (loss, 1.5)
        assert len(trial.metrics) == 10
        assert trial.train_seconds == 1.0
        assert trial.state_bytes == 0.0


def test_where_a_metric_decides_it_is_read_as_the_loss_and_the_loss_beside_it(uri: str) -> None:
    tracker = Tracker(uri, "decided")
    tracker.sweep_run()
    head = TrialHead("a", Phase.CONFIRM, 0, 0, "chosen", {"lr": 1e-3})
    sink = AtOnce(tracker)
    log = TrialLog(sink, tracker.arm_run("a", ""), "t", head, "auc")
    log.rung(Rung(4, 0.25, 0.75, (), 1.0, 0, 1.0, val_aside=3.0))
    log.end(Outcome(End.FINISHED, 4, 0.25, 0.75, 0.5, 0.5, 1.0, 0, test_aside=4.0))
    written = tracker.client.get_run(sink.run_id).data.metrics
    assert (written[names.VAL_LOSS], written[names.TEST_LOSS]) == (3.0, 4.0)
    assert (written["val/objective"], written["val/auc"]) == (0.25, 0.75)
    ((trial,),) = (arm.trials for arm in load_sweep(tracker.client, "decided", tracker.experiment_id).arms)
    assert (trial.metric(names.VAL_LOSS), trial.metric(names.TEST_LOSS)) == (0.25, 0.5)
    assert (trial.metric(names.VAL_ASIDE), trial.metric(names.TEST_ASIDE)) == (3.0, 4.0)
    assert trial.curves[names.VAL_LOSS].values.tolist() == [0.25]
    assert trial.curves[names.VAL_ASIDE].values.tolist() == [3.0]


def test_a_loss_of_zero_is_the_best_and_not_the_worst(uri: str) -> None:
    """Where nothing is chosen yet, the best search trial is drawn."""
    tracker = Tracker(uri, "zero")
    tracker.sweep_run()
    for slot, loss in enumerate([0.5, 0.0]):
        head = TrialHead("a", Phase.SEARCH, slot, 0, "model", {"lr": 1e-3})
        log = TrialLog(AtOnce(tracker), tracker.arm_run("a", ""), "t", head, "accuracy")
        log.rung(Rung(4, loss, 0.0, (), 1.0, 0, 1.0))
        log.end(Outcome(End.FINISHED, 4, loss, 0.0, None, None, 1.0, 0))
    (arm,) = load_sweep(tracker.client, "zero", tracker.experiment_id).arms
    assert [bool(trial.curves) for trial in arm.trials] == [False, True]


# -- both ends -----------------------------------------------------------------------------------------------------


def test_a_fact_that_the_report_reads_is_one_that_an_arm_has() -> None:
    folder = Path(report.__file__).parent
    read = {key for path in folder.rglob("*.py") for key in re.findall(r'facts\.get\("(\w+)"', path.read_text())}
    assert read
    assert read <= {field.name for field in fields(ArmFacts)}
