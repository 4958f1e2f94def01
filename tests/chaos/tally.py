"""What was done to sweeps, and what came of it; as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

PROMISES = (
    ("lost", "results lost"),
    ("doubled", "results, runs or points doubled"),
    ("numbers", "numbers other than the undisturbed ones"),
    ("left running", "runs left RUNNING"),
    ("orphans", "orphan processes"),
    ("hung", "commands that hung"),
    ("exit", "exit 0 without a complete report, tracebacks, failures without their line"),
)


@dataclass(frozen=True)
class Violation:
    """A promise that wasn't kept."""

    kind: str
    what: str
    episode: str
    call: int
    after: str  # the last disturbance before


@dataclass
class Tally:
    """What was done in all episodes, and what came of it."""

    done: Counter[str] = field(default_factory=Counter)  # by disturbance
    fell_on: Counter[tuple[str, str]] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)  # kill, outage
    exits: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    compared: int = 0
    episodes: int = 0
    calls: int = 0


def table(tally: Tally) -> str:
    """Disturbances with what they fell on, then promises with how often each was broken."""
    return "\n".join([*_disturbances(tally), "", *_promises(tally)]) + "\n"


def _disturbances(tally: Tally) -> Iterator[str]:
    broken: dict[str, int] = {}
    for violation in tally.violations:
        broken[violation.after] = broken.get(violation.after, 0) + 1
    yield "| disturbance | times | the command was | violations after it |"
    yield "| --- | ---: | --- | ---: |"
    for name in sorted(tally.done, key=lambda name: (-tally.done[name], name)):
        fell_on = {on: times for (of, on), times in tally.fell_on.items() if of == name}
        said = ", ".join(f"{on} {times}" for on, times in sorted(fell_on.items(), key=lambda item: -item[1]))
        yield f"| {name} | {tally.done[name]} | {said} | {broken.get(name, 0)} |"
    kills, outages = tally.counted["kill"], tally.counted["outage"]
    yield f"| **all** | **{tally.done.total()}** | {kills} kills, {outages} outages | **{len(tally.violations)}** |"


def _promises(tally: Tally) -> Iterator[str]:
    exits = ", ".join(f"{name} {times}" for name, times in tally.exits.most_common())
    yield f"{tally.episodes} sweeps, {tally.calls} calls ({exits}), {tally.compared} times compared:"
    yield ""
    yield "| | violations |"
    yield "| --- | ---: |"
    for kind, name in PROMISES:
        yield f"| {name} | {sum(violation.kind == kind for violation in tally.violations)} |"
