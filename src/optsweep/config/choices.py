"""What there is to choose from, a line each: config groups, named sweeps and samplers, the user's own ones included."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from optsweep.config.compose import choices_of
from optsweep.errors import UserError, nearest

SWEEPS, SAMPLERS = "sweeps", "samplers"

GROUPS: Mapping[str, str] = {
    "optimizers": "optimizer",
    "schedules": "schedule",
    "warmups": "warmup",
    "weight_decays": "weight_decay",
    "averagings": "averaging",
    "tasks": "task",
    "recipes": "recipe",
    "launchers": "hydra/launcher",
}
"""Config groups by what their choices are called."""

OF_SAMPLERS: Mapping[str, str] = {
    "gp": "A Gaussian process models what was seen; from 100 results on as tpe.",
    "tpe": "Tree-structured Parzen estimators model what was seen; cheaper with many results.",
    "quasi-random": "Evenly spread points, and no model.",
}

KINDS = (*GROUPS, SWEEPS, SAMPLERS)


@dataclass(frozen=True)
class ListedChoice:
    """Something to choose."""

    name: str
    does: str  # in a sentence; empty: its file says nothing
    own: str = ""  # the user's own file that it is from


@dataclass(frozen=True)
class Kind:
    """All choices of a kind, and how one is chosen."""

    name: str
    chosen: str  # "optimizer=NAME"
    choices: tuple[ListedChoice, ...]


def kind_named(word: str) -> str:
    """The kind that is meant, by its name or its group's. Raises UserError, naming the nearest."""
    known = {name: name for name in KINDS} | {group: name for name, group in GROUPS.items()}
    known |= {"sweep": SWEEPS, "sampler": SAMPLERS, "launcher": "launchers"}
    if word not in known:
        raise UserError(f"KIND: there is no {word!r}{nearest(word, known)}; there are {', '.join(KINDS)}")
    return known[word]


def kinds(names: tuple[str, ...] = KINDS) -> list[Kind]:
    """These kinds with their choices."""
    groups = choices_of([GROUPS[name] for name in names if name in GROUPS])
    found = []
    for name in names:
        if name == SWEEPS:
            found.append(Kind(name, "-cn NAME", tuple(_sweeps())))
        elif name == SAMPLERS:
            found.append(Kind(name, "search.sampler=NAME", tuple(ListedChoice(*row) for row in OF_SAMPLERS.items())))
        else:
            group = GROUPS[name]
            found.append(Kind(name, f"{group}=NAME", tuple(_choice(group, choice) for choice in groups[group])))
    return found


def _choice(group: str, name: str) -> ListedChoice:
    """Of a group, which its package's file or the user's own says something of; or neither, of another package's."""
    file = files("optsweep.conf").joinpath(group, f"{name}.yaml")
    if file.is_file():
        return ListedChoice(name, said_in(file))
    own = next((path for folder in ("conf", "sweeps") if (path := Path(folder, group, f"{name}.yaml")).is_file()), None)
    return (
        ListedChoice(name, "From Hydra or a plugin of it.")
        if own is None
        else ListedChoice(name, said_in(own), str(own))
    )


def _sweeps() -> Iterator[ListedChoice]:
    shipped = {_stem(file): file for file in files("optsweep.sweeps").iterdir() if file.name.endswith(".yaml")}
    own = {path.stem: path for path in Path("sweeps").glob("*.yaml") if path.stem not in shipped}
    for name in sorted({*shipped, *own}):
        yield (
            ListedChoice(name, said_in(shipped[name]))
            if name in shipped
            else ListedChoice(name, said_in(own[name]), str(own[name]))
        )


def _stem(file: Traversable) -> str:
    return file.name.removesuffix(".yaml")


def said_in(file: Traversable) -> str:
    """The first sentence of the comment that a config begins with, or that stands behind its first key."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    lines = [line for line in lines if line.strip() and "@package" not in line]
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# ").rstrip())
    text = " ".join(head) if head else lines[0].partition(" # ")[2].strip() if lines else ""
    return re.split(r"(?<=[.?!]) (?=[A-Z])", text, maxsplit=1)[0]
