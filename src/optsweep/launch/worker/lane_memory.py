"""What was measured of lanes, kept beside the studies: a file of JSON, by program and device."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optsweep.address import STORAGE_KEY, read_address
from optsweep.checks import number, text, whole
from optsweep.errors import UserError, first_line
from optsweep.train.lane_choice import LaneTimes

FORMAT = 1
NAME = "lanes.json"


@dataclass(frozen=True)
class LaneMemory:
    """The file, and what was in it."""

    file: Path
    times: Mapping[str, LaneTimes]  # by program and device
    trouble: str = ""  # why it couldn't be read

    @classmethod
    def of(cls, storage: str) -> LaneMemory:
        """That of a storage: beside its file, and in ./mlruns where that is a server. Makes nothing."""
        beside = read_address(STORAGE_KEY, storage).file
        file = ((Path("mlruns") if beside is None else beside.parent) / NAME).absolute()
        try:
            return cls(file, _read(file.read_bytes()))
        except FileNotFoundError:
            return cls(file, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError, RecursionError) as error:
            return cls(file, {}, f"{file}: it can't be read ({first_line(error)}), so lanes are measured anew")

    def add(self, found: Mapping[str, LaneTimes]) -> str:
        """Keep what was found beside what others have by now; returns why it can't be kept, if so."""
        if not found:
            return ""
        now = LaneMemory._there(self.file)
        programs = {key: _plain(times) for key, times in {**now, **found}.items()}
        part = self.file.with_suffix(f".{os.getpid()}.part")
        try:
            with open(part, "w", encoding="utf-8", opener=_private) as file:
                json.dump({"format": FORMAT, "programs": programs}, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.file)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            return f"{self.file}: it can't be written ({first_line(error)}), so the next sweep measures lanes again"
        return ""

    def narrow(self, key: str, most: int) -> None:
        """Remember that a program has room for so many lanes only."""
        if (times := self.times.get(key)) is not None:
            self.add({key: replace(times, room=most)})

    @staticmethod
    def _there(file: Path) -> Mapping[str, LaneTimes]:
        try:
            return _read(file.read_bytes())
        except Exception:
            return {}


def _private(path: str, flags: int) -> int:
    """A new file that nobody else may read."""
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()  # left by a process of the same number
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW, 0o600)


def _plain(times: LaneTimes) -> dict[str, Any]:
    return {**asdict(times), "several": {str(lanes): ms for lanes, ms in times.several.items()}}


def _read(content: bytes) -> dict[str, LaneTimes]:
    """Raises what tells that it isn't what `add` writes."""
    found = json.loads(content)
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']!r:.20}")
    return {str(key): _times(held) for key, held in found["programs"].items()}


def _times(held: Mapping[str, Any]) -> LaneTimes:
    several = {int(lanes): number("several", ms, above=0.0) for lanes, ms in held["several"].items()}
    for lanes in several:
        whole("several", lanes, low=2)
    times = LaneTimes(several=several, upto=whole("upto", held["upto"]), alone=text("alone", held["alone"]))
    times = replace(times, room=whole("room", held["room"], low=0))
    return replace(times, one=number("one", held["one"], least=0.0 if times.alone else 1e-9))
