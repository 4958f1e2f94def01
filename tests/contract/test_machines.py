"""Another device or other versions than a sweep's trials have: declined in a line, unless `sweep.allow` lets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from optsweep.build import machine
from optsweep.build.assemble import build_arm
from optsweep.build.fingerprint import FIRST_LOSS, FIRST_NORM, NUMERICS, Identity
from optsweep.build.machine import PARTS, Machine, lets, one_after_the_other
from optsweep.config.allowed import ALLOWED
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.errors import UserError
from optsweep.launch.elsewhere.posted import JOB, Posted, ToCompare, post, taken_down
from optsweep.launch.prepare.continuity import CONTENT, IDENTITY, as_begun, check_history, note_content
from optsweep.launch.prepare.description import Description, described
from optsweep.launch.prepare.devices import Devices, deal
from optsweep.launch.tracked.describe import describe_arm
from optsweep.launch.worker.builds import Builds
from optsweep.launch.worker.inquiries import Workbench
from optsweep.launch.worker.job import Job
from optsweep.launch.worker.worker import Worker, suitable
from optsweep.search.helping import notes
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.tracking import names
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import Phase

A, B = "NVIDIA A100", "Tesla T4"
SMALL = ("task=iris_mlp", "optimizer=sgd", "trainer.steps=12", "trainer.rungs=3", "task.width=4", "trainer.lanes=1")
ONE_TRIAL = (
    "search=none",
    "optimizer.lr=0.01",
    "trainer.checkpoint_seconds=1e-9",
    "trainer.device=cpu",
)


def move_to(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this machine has another device, of the same kind."""
    monkeypatch.setattr(machine, "device_model", lambda _: device)


class Sweep:
    """An arm whose trials are attempted on one device after the other."""

    def __init__(self, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.name, self.monkeypatch = folder, name, monkeypatch
        self.storage, self.tracking = f"sqlite:///{folder}/optuna.db", f"sqlite:///{folder}/mlflow.db"
        self.studies, self.tracker = Studies.open(self.storage, name), Tracker(self.tracking, name)

    def arm(self, *keys: str) -> Arm:
        where = (f"sweep.name={self.name}", f"tracking.uri='{self.tracking}'", f"tracking.storage='{self.storage}'")
        return arm_of(compose([*SMALL, *ONE_TRIAL, *where, *keys]))

    def begin_on(self, device: str, *keys: str) -> tuple[Arm, Description]:
        """What a planner does with the arm there. Raises UserError as it does."""
        move_to(device, self.monkeypatch)
        arm = self.arm(*keys)
        known = [described(arm, build_arm(arm))]
        check_history(self.studies, [arm], known)
        (built,) = as_begun(self.studies, [arm], known)
        with self.studies.take_seat([arm.name], whole=True) as seat:
            note_content(self.studies, seat, [arm], [built])
        return arm, built

    def job(self, arm: Arm, built: Description) -> Job:
        found = describe_arm(self.tracker, arm, built, "sgd")
        post(self.studies, [found])
        return found

    def attempt(self, job: Job, slot: int, *, pauses: int | None = None) -> None:
        """Train a slot, up to so many pauses."""
        name, asked = job.arm.name, count(1)
        earlier = self.studies.history(name, Phase.SEARCH, 1).earlier.get(slot, ())
        with self.studies.take_seat([name], whole=True) as seat:
            tried = Slot(slot, {}, slot, "fixed")
            self.studies.enqueue(seat, name, Phase.SEARCH, tried, len(earlier), earlier=earlier)
        worker = Worker([job], builds=Builds("cpu"), stopping=lambda: pauses is not None and next(asked) >= pauses)
        try:
            assert worker.work_once()
        finally:
            worker.close()

    def posted(self) -> Posted:
        """The arm as a helper takes it down."""
        (found,) = taken_down(notes(self.studies.engine, self.name, (JOB, IDENTITY)), self.storage, self.tracking)
        return found

    def devices(self) -> list[str]:
        """Those of the trials' runs."""
        runs = self.tracker.client.search_runs([self.tracker.experiment_id], f"tags.`{names.KIND}` = 'trial'")
        assert all(run.data.tags[names.VERSIONS].startswith("torch ") for run in runs)
        return sorted(run.data.tags[names.DEVICE] for run in runs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of stores that all tests here share."""
    return tmp_path_factory.mktemp("machines")


@pytest.fixture
def sweep(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(folder)
    return Sweep(folder, f"s{hash(request.node.name) % 10**9}", monkeypatch)


def test_the_key_takes_a_list_of_words_and_a_typo_names_them() -> None:
    assert set(PARTS) == set(ALLOWED)
    assert arm_of(compose([*SMALL, "sweep.name=s"])).allow == ()
    both = arm_of(compose([*SMALL, "sweep.name=s", "sweep.allow=[versions,device,device]"]))
    assert both.allow == ("device", "versions")
    assert replace(both, allow=None).allow == ()  # type: ignore[arg-type]
    for given, said in (
        ("[devise]", "'devise' is not allowed (did you mean device?); give a list of device and versions"),
        ("device", "'device' is not allowed; give a list of device and versions, such as [device]"),
        ("[[device]]", "give a list of device and versions"),
    ):
        with pytest.raises(UserError, match=r"sweep\.allow: ") as refused:
            arm_of(compose([*SMALL, "sweep.name=s", f"sweep.allow={given}"]))
        assert said in str(refused.value)


def test_numbers_that_a_device_computes_may_be_further_apart_on_another_one_and_the_start_may_not() -> None:
    here = Identity(
        {"the device": A, "the rule": "sgd", NUMERICS: 4},
        {FIRST_LOSS: 2.0, FIRST_NORM: 1.0, "the initial norm of w": 3.0},
    )

    def there(**changed: Any) -> Identity:
        return Identity({**here.exact, "the device": B}, {**here.approximate, **changed})

    allow = ("device",)
    assert here.differences(there()) == [f"the device was {B}, is {A}"]
    assert here.differences(there(), allow) == []
    assert here.differences(there(**{FIRST_LOSS: 2.004, FIRST_NORM: 0.997}), allow) == []
    assert len(here.differences(there(**{FIRST_LOSS: 2.02}), allow)) == 1
    assert len(here.differences(there(**{"the initial norm of w": 3.002}), allow)) == 1
    same_device = Identity(here.exact, {**here.approximate, FIRST_LOSS: 2.004})
    assert len(here.differences(same_device, allow)) == 1, "on the same device it is another model"
    assert len(here.differences(Identity({**here.exact, "the rule": "adam"}, here.approximate), allow)) == 1


def test_what_would_let_it_is_offered_where_nothing_else_differs() -> None:
    before, now = Machine(A, "2.11.0", "3.12.1"), Machine(B, "2.12.0", "3.12.1")
    differs = list(now.differences(before, ()))
    assert differs == [f"the device was {A}, is {B}", "versions.torch was 2.11.0, is 2.12.0"]
    assert lets(differs) == "sweep.allow=[device,versions] lets trials differ in that"
    assert list(now.differences(before, ("device",))) == differs[1:]
    assert list(now.differences(before, ALLOWED)) == []
    assert lets([*differs, "the rule was sgd, is adam"]) == lets([]) == ""
    assert now.others(before) == {"device": B, "versions": "torch 2.12.0, Python 3.12.1"}


def test_an_arm_goes_on_elsewhere_only_where_that_is_allowed_and_keeps_its_fingerprint(sweep: Sweep) -> None:
    arm, built = sweep.begin_on(A)
    sweep.attempt(sweep.job(arm, built), 0)
    with pytest.raises(UserError) as refused:
        sweep.begin_on(B)
    assert f"has trials of another device: the device was {A}, is {B}; sweep.allow=[device] lets" in str(refused.value)
    arm, again = sweep.begin_on(B, "sweep.allow=[device]")
    assert (again.fingerprint, again.begun_on) == (built.fingerprint, built.begun_on)
    assert sweep.studies.note(arm.name, IDENTITY)["exact"]["the device"] == A
    sweep.begin_on(A)  # nothing was trained there yet
    move_to(B, sweep.monkeypatch)
    sweep.attempt(sweep.job(arm, again), 1)
    assert sweep.devices() == [A, B]
    with pytest.raises(UserError) as refused:
        sweep.begin_on(A)
    assert str(refused.value) == (
        f"sweep.allow: trials of '{arm.name}' were trained with {B}, which [device] had allowed; give "
        f"sweep.allow=[device] again, or another sweep.name"
    )


def test_another_arm_of_the_sweep_is_not_trained_on_another_machine_either(sweep: Sweep) -> None:
    arm, built = sweep.begin_on(A)
    sweep.attempt(sweep.job(arm, built), 0)
    with pytest.raises(UserError, match=f"has trials of another machine: the device was {A}, is {B}; sweep.allow="):
        sweep.begin_on(B, "optimizer=adam")
    _, other = sweep.begin_on(B, "optimizer=adam", "sweep.allow=[device]")
    assert other.begun_on.device == B


def test_versions_are_compared_and_may_be_allowed(sweep: Sweep) -> None:
    arm, built = sweep.begin_on(A)
    sweep.attempt(sweep.job(arm, built), 0)
    content = sweep.studies.note(arm.name, CONTENT)
    now = content["versions.torch"]
    sweep.studies.set_note(arm.name, CONTENT, {**content, "versions.torch": "1.0"})
    with pytest.raises(UserError, match=rf"versions.torch was '1.0', is '{now}'; sweep.allow=\[versions\] lets"):
        sweep.begin_on(A)
    _, again = sweep.begin_on(A, "sweep.allow=[versions]")
    assert again.begun_on.torch_version == "1.0"


def test_a_worker_elsewhere_declines_with_a_line_unless_it_may_differ(sweep: Sweep) -> None:
    said = {}
    for keys in ((), ("sweep.allow=[device]",)):
        sweep.job(*sweep.begin_on(A, *keys))
        move_to(B, sweep.monkeypatch)
        (said[keys],) = ToCompare([sweep.posted()]).run(Workbench(Builds))
    declined, allowed = said.values()
    assert declined == f"the device was {A}, is {B} (sweep.allow=[device] lets trials differ in that)"
    assert allowed == ""
    other = replace(sweep.posted().identity, approximate={**sweep.posted().identity.approximate, FIRST_LOSS: 9.0})
    (found,) = ToCompare([replace(sweep.posted(), identity=other)]).run(Workbench(Builds))
    assert found.startswith("the first loss was 9, is"), "the rest is compared as ever"


def test_a_worker_whose_own_device_is_another_trains_nothing_unsaid(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    job = sweep.job(*sweep.begin_on(A))
    assert suitable([job], Builds("cpu")) == [job]
    assert suitable([replace(job, machine=None)], Builds("cpu")), "of a planner that doesn't say"
    assert capsys.readouterr().err == ""
    move_to(B, sweep.monkeypatch)
    with sweep.studies.take_seat([job.arm.name], whole=True) as seat:
        sweep.studies.enqueue(seat, job.arm.name, Phase.SEARCH, Slot(0, {}, 0, "fixed"))
    worker = Worker([job], builds=Builds("cpu"))
    assert not worker.work_once()
    worker.close()
    assert capsys.readouterr().err == (
        f"optsweep: a worker declines trials of sgd, because it is another machine than theirs: cpu: the device was "
        f"{A}, is {B}; sweep.allow=[device] lets trials differ in that\n"
    )
    assert suitable([replace(job, arm=replace(job.arm, allow=("device",)))], Builds("cpu"))


def test_a_trial_begun_on_one_device_goes_on_on_another_and_its_run_names_both(sweep: Sweep) -> None:
    arm, built = sweep.begin_on(A, "sweep.allow=[device]")
    job = sweep.job(arm, built)
    sweep.attempt(job, 0, pauses=2)
    assert list((sweep.folder / "checkpoints").rglob("*.pt"))
    begun = sweep.studies.note(arm.name, IDENTITY)
    begun["approximate"][FIRST_LOSS] *= 1.002  # as that card computes it
    sweep.studies.set_note(arm.name, IDENTITY, begun)
    arm, again = sweep.begin_on(B, "sweep.allow=[device]")
    assert sweep.studies.note(arm.name, IDENTITY) == begun, "or that card would be refused when it comes again"
    sweep.attempt(sweep.job(arm, again), 0)
    assert not list((sweep.folder / "checkpoints").rglob("*.set-aside"))
    assert sweep.devices() == [f"{A}, then {B}"]
    assert one_after_the_other(f"{A}, then {B}", B) == f"{A}, then {B}"


class _Answers:
    """One that says which devices there are."""

    def __init__(self, found: Mapping[str, str]) -> None:
        self.found = found

    def ask(self, request: Any, tell: Any = None) -> Any:
        return self.found


def test_workers_are_dealt_devices_of_one_model_unless_others_are_allowed() -> None:
    arm = arm_of(compose([*SMALL, "sweep.name=s", "trainer.device=cuda"]))
    three = _Answers({"cuda:0": A, "cuda:1": B, "cuda:2": A})
    said: list[str] = []
    assert deal(three, arm, None, said.append) == (2, ["cuda:0", "cuda:2"])
    assert said == [
        f"trials of a sweep are trained on one model of device, here {A}; left alone: cuda:1 ({B}); "
        f"sweep.allow=[device] uses them too, with a caveat in the verdict"
    ]
    assert deal(three, arm, 1, like=B) == (1, ["cuda:1"]), "that of the sweep's trials"
    assert deal(three, arm, None, like="another")[1] == ["cuda:0", "cuda:2"], "which is declined in its words"
    said.clear()
    assert deal(three, replace(arm, allow=("device",)), None, said.append) == (3, ["cuda:0", "cuda:1", "cuda:2"])
    assert deal(_Answers({"cuda:0": A, "cuda:1": A}), arm, None, said.append)[0] == 2
    assert said == []
    here = Devices("cpu").run(Workbench(Builds))
    assert here == {"cpu": machine.device_model(torch.device("cpu"))}
