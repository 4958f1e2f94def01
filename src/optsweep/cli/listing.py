"""The verb `list`: what there is to choose from, and the sweeps in the store."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from optsweep.cli.parser import Parser, say_json
from optsweep.config.arm import Arm
from optsweep.config.choices import KINDS, SWEEPS, Kind, kind_named, kinds
from optsweep.report.wording import plural

if TYPE_CHECKING:
    from optsweep.launch.listing import ListedSweep


def list_kind(arguments: Sequence[str]) -> None:
    """A kind with a line for each choice, or the kinds."""
    parser = Parser("optsweep list", description="What there is to choose from: kinds with counts, or one of them.")
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"{', '.join(KINDS)}: a line each")
    parser.add_argument("--storage", default=Arm.storage, help="of the sweeps that were run")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args(arguments)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if options.kind is None:
        found = kinds()
        say_json([_plain(kind) for kind in found]) if options.json else _say(_of_kinds(found), width or 100)
        return
    (kind,) = kinds((kind_named(options.kind),))
    stored = _stored(options.storage) if kind.name == SWEEPS else []
    if options.json:
        say_json(_plain(kind) | ({"stored": [_plain_sweep(held) for held in stored]} if kind.name == SWEEPS else {}))
        return
    _say(_of_choices(kind, width), None)
    if kind.name == SWEEPS:
        print(f"\nin the store: {len(stored) or 'none'}")
        for held in stored:
            _say(_of_sweep(held, width), None)


def _stored(storage: str) -> list[ListedSweep]:
    from optsweep.api import REPORTS
    from optsweep.launch.listing import listed_sweeps

    return listed_sweeps(storage, REPORTS)


def _say(lines: Iterable[str], most: int | None) -> None:
    for line in lines:
        print(line if most is None or len(line) <= most else f"{line[: most - 1]}…")


def _of_kinds(found: Sequence[Kind]) -> Iterator[str]:
    for kind in found:
        names = ", ".join(choice.name for choice in kind.choices)
        yield f"{kind.name:<14}{len(kind.choices):>3}  {kind.chosen:<20} {names}"
    yield f"optsweep list KIND has a line for each, optsweep list {SWEEPS} also those in the store"


def _of_choices(kind: Kind, width: int | None) -> Iterator[str]:
    yield f"{kind.name}: {kind.chosen}"
    names = max(len(choice.name) for choice in kind.choices)
    for choice in kind.choices:
        does = f"{choice.does} [{choice.own}]".strip() if choice.own else choice.does
        yield _wrapped(does, f"  {choice.name:<{names}}  ", width)


def _of_sweep(held: ListedSweep, width: int | None) -> Iterator[str]:
    """A line of facts, and one of what came of it."""
    of = "" if held.planned is None else f" of {held.planned:,}"
    when = "" if held.last is None else f", {held.last.astimezone():%Y-%m-%d %H:%M}"
    yield f"  {held.name}: {held.state}, {plural(held.arms, 'arm')}, {held.done:,}{of} trials{when}"
    if held.verdict:
        yield _wrapped(held.verdict, "    ", width)


def _wrapped(text: str, before: str, width: int | None) -> str:
    """The text behind what is before it: on a terminal of that width, or on one line for other programs."""
    if width is None:
        return before + text
    return textwrap.fill(text, width, initial_indent=before, subsequent_indent=" " * len(before))


def _plain(kind: Kind) -> dict[str, Any]:
    return {"kind": kind.name, "chosen": kind.chosen, "choices": [asdict(choice) for choice in kind.choices]}


def _plain_sweep(held: ListedSweep) -> Mapping[str, Any]:
    return {**asdict(held), "last": None if held.last is None else held.last.isoformat()}
