"""Checkpoints are whole or not there, read only if they are what they say, and no trial is lost by one that isn't."""

from __future__ import annotations

import errno
import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from optsweep.launch.worker import checkpoints
from optsweep.launch.worker.checkpoints import Checkpoints, InterruptedTrainingError, Owner, TrialCheckpoints
from optsweep.search.ownership import Claim
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies, Work
from optsweep.train.checkpoint import NotPlainError, as_plain
from optsweep.train.trial import Phase

CPU = torch.device("cpu")
OWNER = Owner("arm", "trial")
STATE = {"at": [3, 1], "arena": {"params": torch.arange(5.0)}, "told": -1, "name": None}


@pytest.fixture
def files(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints" / "sweep")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(checkpoints, "complain", lines.append)
    return lines


def names(files: Checkpoints) -> list[str]:
    return sorted(path.name for path in files.folder.iterdir())


def test_a_state_comes_back_and_a_later_one_takes_its_place(files: Checkpoints, said: list[str]) -> None:
    assert files.read("a", OWNER, CPU) is None
    files.write("a", OWNER, {"at": [0, 0]})
    files.write("a", OWNER, STATE)
    found = files.read("a", OWNER, CPU)
    assert found is not None
    assert torch.equal(found["arena"].pop("params"), torch.arange(5.0))
    assert found == {**STATE, "arena": {}}
    assert names(files) == ["a.pt"]
    assert (files.folder / "a.pt").stat().st_mode & 0o777 == 0o600
    (files.folder / "a.123.part").write_bytes(b"of a worker that was killed while it wrote")
    files.remove(["a", "never"])
    assert not files.folder.parent.exists()
    assert not said


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil"),)


def with_code(content: bytes) -> bytes:
    """A pickle that runs something when it is loaded, with the digest that it should have."""
    head, payload = checkpoints._head(OWNER, checkpoints.NO_DIGEST), pickle.dumps({"at": Evil()}, protocol=2)
    return checkpoints._head(OWNER, hashlib.sha256(head + payload).hexdigest()) + payload


DAMAGES: Mapping[str, tuple[Callable[[bytes], bytes], str]] = {
    "emptied": (lambda content: b"", "it is damaged"),
    "cut off in its head": (lambda content: content[:50], "it is damaged"),
    "cut off": (lambda content: content[:-1], "it is damaged"),
    "another bit in its head": (flipped(35), "the arm is another by now"),
    "another bit in its digest": (flipped(110), "it is damaged"),
    "another bit": (flipped(700), "it is damaged"),
    "no checkpoint": (lambda content: b"\x80\x04" + content, "it is damaged"),
    "another version's": (lambda content: content.replace(b'"checkpoint": 3', b'"checkpoint": 0'), "another version"),
    "code": (with_code, "it can't be loaded"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_set_aside(
    damage: str, files: Checkpoints, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    change, reason = DAMAGES[damage]
    files.write("a", OWNER, STATE)
    path = files.folder / "a.pt"
    path.write_bytes(change(path.read_bytes()))
    assert files.read("a", OWNER, CPU) is None
    assert names(files) == ["a.set-aside"]
    (line,) = said
    assert reason in line
    assert line.endswith("the trial starts anew")
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("owner", "reason"),
    [(replace(OWNER, fingerprint="x"), "the arm is another by now"), (replace(OWNER, trial="x"), "another trial's")],
)
def test_what_is_somebody_else_s_is_set_aside(owner: Owner, reason: str, files: Checkpoints, said: list[str]) -> None:
    files.write("a", OWNER, STATE)
    assert files.read("a", owner, CPU) is None
    assert reason in said[0]


def test_a_write_that_fails_leaves_the_one_before(files: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write("a", OWNER, {"at": [0, 0]})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(OSError, match="No space"):
        files.write("a", OWNER, STATE)
    assert names(files) == ["a.pt"]
    assert files.read("a", OWNER, CPU) == {"at": [0, 0]}


def test_only_plain_values_are_kept() -> None:
    import numpy as np

    found = as_plain({"a": [np.float64(1.5), (True, None)], 2: torch.nn.Parameter(torch.ones(1))})
    assert found["a"] == [1.5, (True, None)]
    assert type(found["a"][0]) is float
    assert type(found[2]) is torch.Tensor
    with pytest.raises(NotPlainError, match=r"\['a'\]\[0\] is set"):
        as_plain({"a": [{1}]})


def test_the_folder_lies_beside_the_storage(tmp_path: Path) -> None:
    beside = Checkpoints.of(f"sqlite:///{tmp_path}/optuna.db", "a").folder
    assert beside.parent == tmp_path / "checkpoints"
    assert beside != Checkpoints.of(f"sqlite:///{tmp_path}/optuna.db", "b").folder
    assert Checkpoints.of("postgresql://host/db", "a").folder.parent == Path("mlruns/checkpoints").absolute()
    given = Checkpoints.of("postgresql://host/db", "a", tmp_path / "shared")
    assert given.folder == tmp_path / "shared" / "checkpoints" / beside.name


def test_a_shared_folder_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    files = Checkpoints.of("postgresql://host/db", "a", tmp_path / "shared")
    with pytest.raises(OSError, match="is it mounted"):
        files.write("a", OWNER, STATE)
    assert list(tmp_path.iterdir()) == []
    files.folder.parent.parent.mkdir()
    files.write("a", OWNER, STATE)
    files.remove(["a"])
    assert [path.name for path in tmp_path.rglob("*")] == ["shared"], "which isn't ours to take away"


@pytest.mark.parametrize(("stale", "found"), [(2, True), (3, False)])
def test_a_stale_handle_of_a_network_s_folder_is_got_anew(
    stale: int, found: bool, files: Checkpoints, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("a", OWNER, {"at": [0, 0]})
    left, read = iter(range(stale)), checkpoints._read

    def fails(*arguments: Any) -> Any:
        if next(left, None) is not None:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(*arguments)

    monkeypatch.setattr(checkpoints, "_read", fails)
    assert (files.read("a", OWNER, CPU) is not None) is found
    assert ["(Stale file handle); the trial starts anew" in line for line in said] == [True] * (not found)
    assert names(files) == ["a.pt"], "it may be read later"


# -- a batch -------------------------------------------------------------------------------------------------------


class Clock:
    """Stands still unless told; a write takes `cost`."""

    now = 0.0
    cost = 0.0

    def __call__(self) -> float:
        return self.now


def work(number: int = 0, earlier: tuple[str, ...] = (), params: Mapping[str, float] | None = None) -> Work:
    slot = Slot(number, dict(params or {"lr": 0.1}), 0, "sampled")
    return Work("arm", Phase.SEARCH, Claim(number, 1), slot, len(earlier), 0, f"t{number}.{len(earlier)}", earlier)


class Batch:
    """Trials that pause."""

    def __init__(self, files: Checkpoints, *works: Work, seconds: float = 60.0, fingerprint: str = "arm") -> None:
        self.clock, self.stop = Clock(), False
        self.kept = TrialCheckpoints(files, fingerprint, seconds, lambda: self.stop, self.clock)
        for key, one in enumerate(works):
            self.kept.add(key, one, CPU, lambda key=key: [("val/loss", 0.5, 7, key)])  # type: ignore[misc]
        self.kept.begin()
        self.count = len(works)
        self.asked = 0

    def at(self, now: float) -> bool:
        """Pause then; whether the state was asked for."""
        self.clock.now, self.asked = now, 0
        self.kept.pause(self._states)
        return bool(self.asked)

    def _states(self) -> dict[int, dict[str, Any]]:
        self.asked += 1
        self.clock.now += self.clock.cost
        return {place: {"step": 7, "at": [self.clock.now, place]} for place in range(self.count)}


def test_a_trial_is_kept_from_so_many_seconds_on_and_every_so_many(files: Checkpoints) -> None:
    batch = Batch(files, work())
    assert [batch.at(now) for now in (0.0, 59.9, 60.0, 61.0, 119.9, 120.0)] == [False, False, True, False, False, True]
    again = Batch(files, work(earlier=("t0.0",)))
    assert again.kept.points_before(0) == [("val/loss", 0.5, 7, 0)], "where they were written may be gone"
    assert not Batch(files, work(), seconds=0.0).at(1e9)


def test_keeping_trials_costs_a_hundredth_of_the_time_at_most(files: Checkpoints) -> None:
    batch = Batch(files, work())
    batch.clock.cost = 2.0
    assert batch.at(60.0)
    assert [batch.at(now) for now in (122.0, 261.9, 262.1)] == [False, False, True]


@pytest.mark.parametrize(("seconds", "now", "kept"), [(60.0, 59.0, False), (60.0, 61.0, True), (0.0, 61.0, False)])
def test_a_trial_that_is_stopped_is_kept_if_it_is_long(
    seconds: float, now: float, kept: bool, files: Checkpoints
) -> None:
    batch = Batch(files, work(), seconds=seconds)
    batch.stop = True
    with pytest.raises(InterruptedTrainingError):
        batch.at(now)
    assert (files.folder / "t0.0.pt").exists() is kept


def test_a_later_attempt_goes_on_and_what_it_leaves_takes_the_place(files: Checkpoints) -> None:
    first = Batch(files, work())
    first.kept.rungs(0)[10] = 0.5
    first.at(60.0)
    second = Batch(files, work(0, ("t0.0",)))
    assert second.kept.goes_on(0)
    assert (first.kept.went_on(0), second.kept.went_on(0)) == (None, 7)
    assert second.kept.saved(0) == {"step": 7, "at": [60.0, 0]}
    assert second.kept.rungs(0) == {10: 0.5}, "which a pruner is told again"
    assert names(files) == ["t0.0.pt"], "it may die before it has anything better"
    second.at(60.0)
    assert names(files) == ["t0.1.pt"]
    third = Batch(files, work(0, ("t0.0", "t0.1")))
    assert third.kept.goes_on(0)
    third.kept.ended(0)
    assert not files.folder.exists()


def test_no_other_trial_goes_on_from_it(files: Checkpoints, said: list[str]) -> None:
    Batch(files, work()).at(60.0)
    assert not Batch(files, work(0, ("t0.0",), {"lr": 0.2})).kept.goes_on(0)
    assert "another trial's" in said[0]
    Batch(files, work()).at(60.0)
    assert not Batch(files, work(0, ("t0.0",)), fingerprint="other").kept.goes_on(0)
    assert "the arm is another" in said[1]


def test_what_does_not_fit_is_set_aside(files: Checkpoints, said: list[str]) -> None:
    Batch(files, work()).at(60.0)
    second = Batch(files, work(0, ("t0.0",)))
    second.kept.unfit([0], RuntimeError("shapes\ndiffer"))
    assert names(files) == ["t0.0.set-aside"]
    assert "it doesn't fit (shapes)" in said[0]
    assert second.kept.went_on(0) is None


def test_trials_that_ended_or_were_lost_are_kept_no_more(files: Checkpoints) -> None:
    batch = Batch(files, work(0), work(1), work(2))
    batch.at(60.0)
    batch.kept.ended(0)
    (files.folder / "t1.0.pt").unlink()
    batch.kept.leave(1)
    batch.at(120.0)
    assert names(files) == ["t2.0.pt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed")])
def test_training_goes_on_without_room(
    error: Exception, files: Checkpoints, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("torch.save", fail)
    batch = Batch(files, work())
    batch.at(60.0)
    assert "training goes on" in said[0]


def test_what_can_not_be_kept_is_said_once(files: Checkpoints, said: list[str]) -> None:
    batch = Batch(files, work())
    batch._states = lambda: {0: {"held": {1, 2}}}  # type: ignore[method-assign]
    batch.at(60.0)
    batch.at(1e6)
    assert said == ["trials of arm can't be kept, because ['training']['held'] is set"]


# -- which attempts ------------------------------------------------------------------------------------------------


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    return Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")


def test_what_dead_workers_have_left_is_forgotten_at_the_end(studies: Studies, files: Checkpoints) -> None:
    seat = studies.take_seat(["arm"], whole=True)
    studies.enqueue(seat, "arm", Phase.CONFIRM, Slot(0, {}, 0, "fixed"), repeat=1)
    (popped,) = studies.pop("arm", Phase.CONFIRM, "worker", 60.0, 1, repeat=1)
    for trial in (popped.id, "other"):
        files.write(trial, OWNER, STATE)
    (files.folder / f"{popped.id}.pt").rename(files.folder / f"{popped.id}.123.part")  # killed while it wrote
    files.forget(studies, {("arm", 0), ("arm", 1)})
    assert names(files) == ["other.pt"]


def test_an_attempt_goes_on_from_those_that_no_error_of_their_own_ended(studies: Studies) -> None:
    seat = studies.take_seat(["arm"], whole=True)
    ways: list[dict[str, bool]] = [{"died": True}, {}, {"excused": True}, {"died": True}]
    ids: list[str] = []
    for way in ways:
        earlier = studies.history("arm", Phase.SEARCH, 5).earlier.get(0, ())
        studies.enqueue(seat, "arm", Phase.SEARCH, Slot(0, {}, 0, "fixed"), earlier=earlier)
        (popped,) = studies.pop("arm", Phase.SEARCH, "worker", 60.0, 1)
        assert popped.earlier == earlier
        ids.append(popped.id)
        studies.fail(popped.claim, "why", **way)
    assert studies.history("arm", Phase.SEARCH, 5).earlier[0] == (ids[2], ids[3])
