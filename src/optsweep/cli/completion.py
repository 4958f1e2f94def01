"""What the Tab key completes, beside what Hydra knows: verbs and what they take, sweeps by name, the next of a list."""

from __future__ import annotations

import contextlib
import io
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from optsweep.address import STORAGE_KEY, read_address
from optsweep.cli import docs
from optsweep.cli.table import VERBS
from optsweep.config.arm import Arm
from optsweep.config.choices import KINDS, SWEEPS, kinds
from optsweep.database import connection_to
from optsweep.errors import UserError
from optsweep.search.study_names import StudyName

CONFIG_NAME = ("-cn", "--config-name")
KEYS = "KEY=VALUE"

_PLAIN = re.compile(r"[\w./=,+~@%:-]+")
"""What bash may be given: it expands the words of a list."""


def completions(line: str, of_hydra: Callable[[str], Iterable[str]]) -> list[str]:
    """The words that the last one of a command line may become; `of_hydra` completes keys and choices.

    Whatever goes wrong, nothing is offered: this is for somebody who is typing.
    """
    *before, word = line.split(" ")
    before = [part for part in before if part][1:]
    try:
        found = set(_found(before, word, of_hydra))
    except (Exception, SystemExit):  # a config that can't be read, flags that are unfinished
        return []
    return sorted(choice for choice in found if choice.startswith(word) and _PLAIN.fullmatch(choice))


def _found(before: Sequence[str], word: str, of_hydra: Callable[[str], Iterable[str]]) -> Iterable[str]:
    if before and before[-1] in CONFIG_NAME:
        return [choice.name for choice in kinds((SWEEPS,))[0].choices]
    if not before:
        return [*VERBS, *_keys([], word, of_hydra)]
    if before[0] not in VERBS:
        return _keys(before, word, of_hydra)
    verb = VERBS[before[0]]
    if word.startswith("-"):
        return _flags(verb.name)
    takes = verb.takes.split(" ")[0].strip("[]")
    return _keys(before[1:], word, of_hydra) if takes == KEYS else _BY_WORD.get(takes, list)()


def _keys(before: Sequence[str], word: str, of_hydra: Callable[[str], Iterable[str]]) -> Iterable[str]:
    """Keys and choices; of a list with commas the last item, of those before it the first."""
    key, equals, value = word.partition("=")
    *listed, last = value.split(",")
    prefix = f"{key}={','.join(listed)}," if listed else ""
    first = [part.partition(",")[0] for part in before]
    found = of_hydra(" ".join(["optsweep", *first, f"{key}{equals}{last}"]))
    return [prefix + choice.partition("=")[2] for choice in found] if prefix else found


def _flags(verb: str) -> Iterable[str]:
    """Those that its help names."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        VERBS[verb](["--help"])
    return re.findall(r"(?<!\S)--[\w-]+", said.getvalue())


def _sweeps() -> list[str]:
    """Those that have a report here, or studies in the usual place: by one query, since Optuna takes a second."""
    found = {path.parent.name for path in Path("reports").glob("*/results.json")}
    with contextlib.suppress(UserError, OSError, sqlite3.Error):
        file = read_address(STORAGE_KEY, Arm.storage).file
        if file is not None and file.is_file():
            with connection_to(file) as connection:
                studies = connection.execute("SELECT study_name FROM studies").fetchall()
            found |= {study.sweep for (name,) in studies if (study := StudyName.read(name)) is not None}
    return sorted(found)


_BY_WORD: Mapping[str, Callable[[], Iterable[str]]] = {
    "NAME": _sweeps,
    "KIND": lambda: KINDS,
    "PAGE": lambda: docs.pages(),
}
"""What stands for a verb's first argument in the help, and what it may be."""
