"""Checkpoints of trials in training: a file each, written whole or not at all, and read only if it is what it says.

A file is a line of JSON (format, whose it is, digest) and what torch.save makes of the state, which is loaded with
`weights_only`. It lies in the folder of `tracking.checkpoints`; without one beside the storage of the studies, and in
./mlruns where that is a server.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from optsweep.address import STORAGE_KEY, read_address
from optsweep.build.fingerprint import fingerprint_of
from optsweep.build.machine import one_after_the_other
from optsweep.errors import first_line
from optsweep.search.studies import Studies, Work
from optsweep.terminal import complain
from optsweep.tracking.records import MetricPoint
from optsweep.train.trial import Phase

if TYPE_CHECKING:  # a planner takes files away, and has no use for a second of torch
    import torch

    from optsweep.train.checkpoint import Saved

FORMAT = 3
"""Bumped when a checkpoint of before can't be gone on from."""

SHARE = 0.01
"""Of the time that trials may spend on being kept."""

TRIES_TO_MAKE = 10
"""A file in a folder that others may take away."""

TRIES_TO_READ = 3
"""A file of a network's folder, whose handle is stale once another machine has put a new one in its place."""

NO_DIGEST = "0" * 64
LONGEST_HEAD = 1000


class InterruptedTrainingError(Exception):
    """The worker was asked to stop in the middle of a trial."""


class _UnusableError(Exception):
    """A file isn't what is looked for; says why."""


@dataclass(frozen=True)
class Owner:
    """Whose a checkpoint is: the arm's fingerprint, and which of its trials, however often that was attempted."""

    fingerprint: str
    trial: str

    @classmethod
    def of(cls, work: Work, fingerprint: str) -> Owner:
        """The owner of a popped trial's."""
        slot = work.slot
        trial = [work.arm, work.phase.value, work.repeat, slot.number, slot.seed, sorted(slot.params.items())]
        return cls(fingerprint, fingerprint_of({"trial": trial}))


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a sweep, by the ids of its trials."""

    folder: Path
    shared: bool = False  # in a folder of many machines, which isn't made where it isn't mounted

    @classmethod
    def of(cls, storage: str, sweep: str, given: Path | None = None) -> Checkpoints:
        """Those of the sweep of that name in a storage, in a given folder. Makes nothing."""
        file = read_address(STORAGE_KEY, storage).file
        own = Path("mlruns") if file is None else file.parent
        base = (given or own).absolute()  # a user's model may change the working folder
        folder = base / "checkpoints" / hashlib.sha256(sweep.encode()).hexdigest()[:16]
        return cls(folder, shared=given is not None)

    def write(self, trial: str, owner: Owner, state: Saved) -> None:
        """Keep a trial's state in place of what was kept before. Raises OSError and NotPlainError."""
        import torch

        from optsweep.train.checkpoint import as_plain

        plain = as_plain(state)
        path = self._path(trial)
        beside = path.with_suffix(f".{uuid.uuid4().hex}.part")  # numbers of processes are a machine's own
        try:
            with os.fdopen(self._made(beside), "wb") as file:
                hashed = _Hashed(file)
                hashed.write(_head(owner, NO_DIGEST))
                torch.save(plain, cast(IO[bytes], hashed))
                file.seek(0)
                file.write(_head(owner, hashed.digest.hexdigest()))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            _sync(self.folder)
        finally:
            beside.unlink(missing_ok=True)

    def read(self, trial: str, owner: Owner, device: torch.device) -> Saved | None:
        """What was kept of a trial; None if nothing was, or nothing that can be used: that is set aside."""
        for left in reversed(range(TRIES_TO_READ)):
            try:
                with self._path(trial).open("rb") as file:
                    return _read(file, owner, device)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno == errno.ESTALE and left:
                    continue
                complain(f"{self._path(trial)} can't be read ({error.strerror}); the trial starts anew")
                return None
            except _UnusableError as error:
                self.set_aside(trial, str(error))
                return None
        return None

    def set_aside(self, trial: str, reason: str) -> None:
        """Leave a trial's checkpoint under another name."""
        path = self._path(trial)
        aside = path.with_suffix(".set-aside")
        with contextlib.suppress(OSError):
            path.replace(aside)
            complain(f"checkpoint {aside} is set aside, because {reason}; the trial starts anew")

    def remove(self, trials: Collection[str]) -> None:
        """Forget trials, what was being written of them too, and the folder with the last one."""
        with contextlib.suppress(OSError):
            if not self.folder.is_dir():  # as that of short trials, of which hundreds end
                return
            for trial in trials:
                for path in (self._path(trial), *self.folder.glob(f"{trial}.*.part")):
                    path.unlink(missing_ok=True)
            self.folder.rmdir()
            self.folder.parent.rmdir()

    def forget(self, studies: Studies, arms: Collection[tuple[str, int]]) -> None:
        """Remove what dead workers have left of trials of these searches, which are at their end."""
        left = {path.name.partition(".")[0] for end in ("pt", "part") for path in self.folder.glob(f"*.{end}")}
        if not left:
            return
        trials = (trial for arm, repeat in arms for phase in Phase for trial in studies.trials(arm, phase, repeat))
        self.remove(left & {str(trial.user_attrs.get("id")) for trial in trials})

    def _made(self, path: Path) -> int:
        """A new file, its owner's alone; somebody may just be taking the folder away."""
        for _ in range(TRIES_TO_MAKE):
            with contextlib.suppress(FileNotFoundError):
                self.folder.parent.mkdir(parents=not self.shared, exist_ok=True)
                self.folder.mkdir(exist_ok=True)
                return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        home = self.folder.parent.parent
        raise FileNotFoundError(f"{path} is taken away" if home.is_dir() else f"{home} isn't there: is it mounted?")

    def _path(self, trial: str) -> Path:
        return self.folder / f"{trial}.pt"


@dataclass
class _Kept:
    """A trial in training, and what is kept of it beside its state."""

    work: Work
    owner: Owner
    points: Callable[[], Sequence[MetricPoint]]  # of its curves so far
    since: float
    last: float  # when it was kept, or began
    found: Saved | None = None  # by an earlier attempt, until it is handed out
    before: str = ""  # that attempt
    step: int = 0  # that it had come to
    rungs: dict[int, float] = field(default_factory=dict)  # what was told of it, by step
    points_before: Sequence[MetricPoint] = ()  # of its curves, up to where it goes on
    trained_on: Sequence[str] = ()  # device and versions, those of earlier attempts first


class TrialCheckpoints:
    """Keeps trials, named by their keys, each from `seconds` of training on and every `seconds`; 0: never.

    So rarely, at least, that it costs a hundredth of the time. Where trials pause they are also told to stop.
    """

    def __init__(
        self,
        files: Checkpoints,
        fingerprint: str,
        seconds: float,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.due = math.inf
        self._files, self._fingerprint, self._stopping, self._clock = files, fingerprint, stopping, clock
        self._seconds = seconds or math.inf
        self._kept: dict[int, _Kept] = {}

    def add(
        self,
        key: int,
        work: Work,
        device: torch.device,
        points: Callable[[], Sequence[MetricPoint]],
        machine: Sequence[str] = (),
    ) -> None:
        """A trial begins; look for what earlier attempts have left, the last one first.

        `points` are those of its curves so far. They are kept with it, as `machine` is, what it is trained on in words:
        where they were written may be gone by the time that it goes on.
        """
        now = self._clock()
        kept = self._kept[key] = _Kept(work, Owner.of(work, self._fingerprint), points, now, now, trained_on=machine)
        for before in reversed(work.earlier):
            if (state := self._files.read(before, kept.owner, device)) is not None:
                kept.found, kept.before = state["training"], before
                kept.step = int(state["training"].get("step", 0))
                kept.rungs = dict(state["rungs"])
                kept.points_before = [(name, value, when, step) for name, value, when, step in state["points"]]
                kept.trained_on = list(map(one_after_the_other, state.get("trained_on", machine), machine))
                break

    def goes_on(self, key: int) -> bool:
        """Whether a trial goes on from something."""
        return bool(self._kept[key].before)

    def went_on(self, key: int) -> int | None:
        """The step that a trial went on from; None: it began anew."""
        kept = self._kept[key]
        return kept.step if kept.before else None

    def rungs(self, key: int) -> dict[int, float]:
        """What was told of a trial, by step, and is kept with it."""
        return self._kept[key].rungs

    def points_before(self, key: int) -> Sequence[MetricPoint]:
        """The points of a trial's curves up to where it goes on."""
        return self._kept[key].points_before

    def trained_on(self, key: int) -> Sequence[str]:
        """Device and versions of a trial, those that it goes on from included."""
        return self._kept[key].trained_on

    def ended(self, key: int) -> None:
        """A trial has a result, or can't go on from what it came to."""
        if (kept := self._kept.pop(key, None)) is not None:
            self._files.remove([kept.work.id, *kept.work.earlier])

    def leave(self, key: int) -> None:
        """A trial is somebody else's."""
        self._kept.pop(key, None)

    # -- as train/checkpoint.py has it ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Count seconds from now on."""
        now = self._clock()
        for kept in self._kept.values():
            kept.since = kept.last = now
        self.due = now + self._seconds

    def saved(self, key: int) -> Saved | None:
        """What was found; it is handed out once."""
        if (kept := self._kept.get(key)) is None:
            return None
        found, kept.found = kept.found, None
        return found

    def unfit(self, keys: Collection[int], error: Exception) -> None:
        """Set aside what was found."""
        for key in keys:
            kept = self._kept[key]
            before, kept.before = kept.before, ""
            self._files.set_aside(before, f"it doesn't fit ({first_line(error)})")

    def pause(self, states: Callable[[], Mapping[int, Saved]]) -> None:
        """Write what is due. Raises InterruptedTrainingError if trials are to stop."""
        now, stopping = self._clock(), self._stopping()
        if now >= self.due or stopping:
            began = {key: kept.since if stopping else kept.last for key, kept in self._kept.items()}
            if due := {key for key, then in began.items() if now - then >= self._seconds}:
                self._write({key: state for key, state in states().items() if key in due})
            after = self._clock()
            begun = min((kept.last for kept in self._kept.values()), default=after)
            self.due = max(begun + self._seconds, after + (after - now) / SHARE)
        if stopping:
            raise InterruptedTrainingError

    def _write(self, states: Mapping[int, Saved]) -> None:
        """Training goes on whether or not that is possible."""
        from optsweep.train.checkpoint import NotPlainError

        try:
            for key, state in states.items():
                kept = self._kept[key]
                points = [list(point) for point in kept.points()]
                beside = {"rungs": kept.rungs, "points": points, "trained_on": list(kept.trained_on)}
                self._files.write(kept.work.id, kept.owner, {"training": state, **beside})
                self._files.remove(kept.work.earlier)
                kept.last = self._clock()
        except NotPlainError as error:
            self._seconds = math.inf
            complain(f"trials of {kept.work.arm} can't be kept, because {error}")
        except (OSError, RuntimeError) as error:  # torch raises one for the other
            complain(f"a checkpoint can't be written in {self._files.folder} ({first_line(error)}); training goes on")
            for kept in self._kept.values():  # to be tried again when it is due again
                kept.last = self._clock()


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        """Write and hash."""
        self.digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        """Let the file see to that."""


def _head(owner: Owner, digest: str) -> bytes:
    """The first line, as long with any digest."""
    head = {"checkpoint": FORMAT, "fingerprint": owner.fingerprint, "trial": owner.trial, "digest": digest}
    return json.dumps(head).encode() + b"\n"


def _read(file: IO[bytes], owner: Owner, device: torch.device) -> Saved:
    """The state in a file. Raises _UnusableError for one that isn't this owner's, or isn't whole."""
    line = file.readline(LONGEST_HEAD)
    try:
        head = json.loads(line)
        version, found, digest = head["checkpoint"], Owner(head["fingerprint"], head["trial"]), head["digest"]
    except (ValueError, KeyError, TypeError):
        raise _UnusableError("it is damaged") from None
    if version != FORMAT:
        raise _UnusableError("it is of another version of optsweep")
    if found != owner:
        raise _UnusableError("it is another trial's" if found.trial != owner.trial else "the arm is another by now")
    found_digest = hashlib.sha256(_head(owner, NO_DIGEST))
    for content in _chunks(file):
        found_digest.update(content)
    if found_digest.hexdigest() != digest:
        raise _UnusableError("it is damaged")
    file.seek(len(line))
    import torch

    from optsweep.train.checkpoint import places

    try:
        state: Any = torch.load(file, map_location=places(device), weights_only=True)
    except Exception as error:  # whatever a pickle can do wrong
        raise _UnusableError(f"it can't be loaded ({first_line(error)})") from None
    if not isinstance(state, dict):
        raise _UnusableError("it holds no state")
    return state


def _chunks(file: IO[bytes], size: int = 1 << 20) -> Iterator[bytes]:
    while content := file.read(size):
        yield content


def _sync(folder: Path) -> None:
    """Let the renaming last, where a folder can be asked for that."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
