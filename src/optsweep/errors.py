"""The one exception that a user is meant to read: a single line that names the key, what is wrong, what is allowed."""

from __future__ import annotations

import re
import shlex
import sysconfig
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import FrameType

_PRODUCT = Path(__file__).resolve().parent
_INSTALLED = tuple(
    Path(path).resolve()
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_PACKAGES = frozenset({"site-packages", "dist-packages"})


class UserError(ValueError):
    """A mistake in what the user gave; printed as one line, exit code 2, before any training."""


class NotThereError(UserError):
    """A store, or a sweep in it, isn't there; somebody may be about to make it."""


class SweepFailedError(Exception):
    """Every trial of a sweep crashed; printed as one line, exit code 1, when its report is written."""

    def __init__(self, sweep: str, reason: str) -> None:
        super().__init__(
            f"sweep.name={sweep}: every trial crashed, the first one with {reason}; mend it and give the same command "
            f"again (crashed trials of unchanged code: optsweep retry {shlex.quote(sweep)})"
        )


class GoesOnError(Exception):
    """A sweep isn't done, and jobs on a cluster go on with it; printed as one line, exit code 3."""


def without_secrets(text: str) -> str:
    """The text with what is secret in its addresses starred out: before the last @ of each, and in its query.

    Rather too much than too little: passwords with @ or / are written as they are by those who don't know better.
    """
    return _SECRET_OPTION.sub(r"\1***", _ADDRESS.sub(_starred, text))


_ADDRESS = re.compile(r"([a-zA-Z][\w+.\-]*)://([^\s'\"]*)@")
_SECRET_OPTION = re.compile(
    r"([?&;][\w\-]*(?:password|passwd|passphrase|pwd|token|secret|api_?key|credential)[\w\-]*=)[^&;#\s'\"]*",
    re.IGNORECASE,
)
_WITHOUT_USERS = ("sqlite", "file")
"""Schemes of addresses that are paths, in which an @ is a letter like any other."""


def _starred(found: re.Match[str]) -> str:
    scheme, who = found[1], found[2]
    if scheme.partition("+")[0] in _WITHOUT_USERS:
        return found[0]
    user, colon, _ = who.partition(":")
    return f"{scheme}://{user}:***@" if colon and "/" not in user else f"{scheme}://***@"


def first_line(error: BaseException) -> str:
    """Of its message; its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


FULL_OF_CLIENTS = ("too many clients", "remaining connection slots", "too many connections")
"""What PostgreSQL and poolers say where no connection is left."""

MORE_CONNECTIONS = "has no connection left; raise its max_connections, or put a pooler such as PgBouncer before it"


def is_full_of_clients(text: str) -> bool:
    """Whether an error's text says that a database server has no connection left."""
    return any(said in text for said in FULL_OF_CLIENTS)


def nearest(word: str, candidates: Iterable[str]) -> str:
    """' (did you mean …?)' with the closest candidate, or nothing; of keys, those that end alike come first."""
    known = list(candidates)
    alike = [key for key in known if key.rpartition(".")[2] == word.rpartition(".")[2]]
    close = get_close_matches(word, alike or known, n=1, cutoff=0.0 if alike else 0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def is_own(path: Path) -> bool:
    """Whether a source file is the user's own: neither Python's, nor installed in site-packages, nor this product's."""
    foreign = path.is_relative_to(_PRODUCT) or not _PACKAGES.isdisjoint(path.parts)
    return not foreign and not any(path.is_relative_to(folder) for folder in _INSTALLED)


def is_of_own_code(error: BaseException) -> bool:
    """Whether an error has come through the user's own code."""
    return bool(_own_frames(error))


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    return _own(traceback.extract_tb(error.__traceback__))


def _own(frames: Iterable[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    return [
        frame for frame in frames if not frame.filename.startswith("<frozen") and is_own(Path(frame.filename).resolve())
    ]


def place_of(frame: FrameType) -> str:
    """Where a thread is: 'model.py:12, in forward', of the user's own code if it is in some."""
    frames = [found for found in traceback.extract_stack(frame) if (found.filename, found.name) != _STARTED_BY]
    return _place((_own(frames) or frames)[-1])


def place_in(dump: str) -> str:
    """Where a thread was that a signal has killed, of the user's own code: in what faulthandler has written of it."""
    for file, line, name in _FATAL_FRAME.findall(dump.rpartition("Current thread")[2].partition("\n\n")[0]):
        if not file.startswith("<") and is_own(Path(file).resolve()):
            return f"{Path(file).name}:{line}, in {name}"
    return ""


_FATAL_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
_STARTED_BY = ("<string>", "<module>")
"""The outermost frame of a process that multiprocessing started."""


def _place(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"


def located(error: BaseException) -> str:
    """An error of the user's code in a line, the last line of their own that led to it first.

    'model.py:12, in forward: RuntimeError: mat1 and mat2 shapes cannot be multiplied'
    """
    own = _own_frames(error)
    text = " ".join((str(error).strip().splitlines() or [""])[0].split())[:200]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{_place(own[-1])}: {said}" if own else said
