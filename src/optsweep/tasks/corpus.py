"""Bytes to train a language model on: the source text of Python's standard library, or a file of the user's."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optsweep.errors import UserError
from optsweep.tasks.base import Split

EXCLUDED = frozenset(
    {
        *("test", "tests", "idle_test", "ctypes_test"),  # tests repeat what they test
        *("idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages", "dist-packages"),  # not in every install
        *("encodings", "pydoc_data", "__phello__"),  # tables written by programs
        *("__pycache__", "lib-dynload"),
    }
)
"""Folders of the standard library that are left out."""

SHARES = {Split.VAL: 0.05, Split.TEST: 0.05}
"""Shares of the files; the rest is for training."""

MINIMUM = 1_000_000
"""Bytes; a standard library with less was stripped of its sources, and figures from it would mean nothing."""


@dataclass(frozen=True)
class Corpus:
    """Bytes of each split, and what they are of."""

    splits: Mapping[Split, bytes]
    origin: str


def standard_library(max_bytes: int | None = None, root: Path | None = None) -> Corpus:
    """Source text of the running interpreter's standard library, `max_bytes` of it at most.

    Splits are made by file: which one a file is in depends on a hash of its path alone, so it is the same everywhere.
    Files with the same content count once. `max_bytes` takes files in the order of another hash, whole ones only.
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    origin = f"standard library of {sys.implementation.name} {sys.version.split()[0]}"
    chosen: dict[str, bytes] = {}
    seen: set[bytes] = set()
    total = 0
    paths = dict(_sources(root))
    for name in sorted(paths, key=(lambda name: _hash(name)[8:]) if max_bytes else None):
        content = paths[name].read_bytes()
        identity = hashlib.blake2b(content, digest_size=16).digest()
        if not content or identity in seen:
            continue
        if max_bytes and total + len(content) > max_bytes:
            continue
        seen.add(identity)
        chosen[name] = content
        total += len(content)
    if total < min(MINIMUM, max_bytes or MINIMUM) // 2:
        raise UserError(
            f"task: {root} holds only {total} bytes of Python source; give task=text with a text file of your own"
        )
    splits: dict[Split, list[bytes]] = {split: [] for split in Split}
    for name in sorted(chosen):
        splits[split_of(name)].append(chosen[name])
    return Corpus({split: b"".join(parts) for split, parts in splits.items()}, origin)


def text_file(path: str | None, context: int) -> Corpus:
    """The bytes of a file, cut into training, validation and test in this order.

    Raises UserError if it is missing, empty, or too short for each split to hold a window of `context` bytes and one.
    """
    if not path:
        raise UserError("task.path: give the path of a text file")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"task.path: there is no file {file}; give the path of a text file")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"task.path: {file} can't be read ({error.strerror})") from None
    if not content:
        raise UserError(f"task.path: {file} is empty; give a file with text")
    num_test, num_val = (int(SHARES[split] * len(content)) for split in (Split.TEST, Split.VAL))
    shortest = min(num_test, num_val)
    if shortest <= context:
        needed = math.ceil((context + 1) / min(SHARES.values()))
        raise UserError(
            f"task.path: {file} has {len(content)} bytes; task.context={context} needs {needed}, because "
            f"validation and test get {min(SHARES.values()):.0%} each"
        )
    end = len(content) - num_val - num_test
    splits = {Split.TRAIN: content[:end], Split.VAL: content[end:-num_test], Split.TEST: content[-num_test:]}
    return Corpus(splits, file.name)


def split_of(name: str) -> Split:
    """The split that a file belongs to, by a hash of its path (with forward slashes)."""
    place = int.from_bytes(_hash(name)[:8]) / 2**64
    if place < SHARES[Split.VAL]:
        return Split.VAL
    return Split.TEST if place < SHARES[Split.VAL] + SHARES[Split.TEST] else Split.TRAIN


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    """(relative path with forward slashes, path) of every module; build-time configuration left out."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in EXCLUDED and not name.startswith("config-")]
        for file in files:
            if file.endswith(".py") and not file.startswith("_sysconfigdata"):
                path = Path(folder, file)
                yield path.relative_to(root).as_posix(), path
