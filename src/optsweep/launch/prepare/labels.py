"""Names of arms for people: what tells an arm from its siblings, and which one is the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from optsweep.config.arm import GROUPS, Arm
from optsweep.errors import UserError
from optsweep.inference.groups import group
from optsweep.report.figures.canvas import COLOURS
from optsweep.tracking.schema import SweepPlan


def labels_of(arms: Sequence[Arm]) -> dict[str, str]:
    """A short name per arm: optimizer and schedule, and whatever else tells it from the others."""

    def part(arm: Arm, group: str) -> str:
        choice = arm.choices.get(group, "none")
        if group == "optimizer" and choice == "external":
            return arm.optimizer.target.rpartition(".")[2]
        if group == "warmup":
            return f"{choice} warm-up" if choice != "none" else "no warm-up"
        if group == "weight_decay":
            return f"{choice} decay" if choice != "none" else "no decay"
        if group == "averaging" and choice == "none":
            return ""
        return choice

    groups = ["task", "optimizer", "schedule", "warmup", "weight_decay", "averaging"]
    varying = [g for g in groups if len({part(arm, g) for arm in arms}) > 1 or g in ("optimizer", "schedule")]
    axes = sorted({key for arm in arms for key in arm.axes})
    labels = {}
    for arm in arms:
        parts = [part(arm, g) for g in varying]
        parts += [f"{_short(key)}={arm.axes[key]}" for key in axes if key in arm.axes]
        labels[arm.name] = " + ".join(filter(None, parts))
    if len(set(labels.values())) < len(labels):  # a recipe set more than the choices say
        for arm in arms:
            if recipe := arm.choices.get("recipe"):
                labels[arm.name] += f" ({recipe})"
    return labels


def colours_of(plan: SweepPlan) -> dict[str, str]:
    """A colour per arm, by its place in the plan: the one that it has in the report where there is one task.

    None where arms would share one: MLflow has more of its own.
    """
    if len(plan.arms) > len(COLOURS):
        return {title.name: "" for title in plan.arms}
    return {title.name: COLOURS[place % len(COLOURS)] for place, title in enumerate(plan.arms)}


def _short(key: str) -> str:
    """The last part of a key; all of it where that says too little, as in `warmup.steps` and `weight_decay.value`."""
    group, _, last = key.rpartition(".")
    return key if last in ("steps", "value") and group != "trainer" else last


@dataclass(frozen=True)
class NamedArm:
    """An arm as far as naming a baseline goes."""

    name: str
    label: str
    choices: Mapping[str, str]


def baseline_of(arms: Sequence[Arm], labels: Mapping[str, str], *, all_arms: bool) -> str | None:
    """Name of the arm that the others are held against; None: whichever the sweep has already, or its first."""
    wanted = arms[0].baseline
    if wanted is None:
        return None
    found = meant([NamedArm(arm.name, labels[arm.name], arm.combination) for arm in arms], wanted)
    if not found and all_arms:  # a stock launcher's job knows only its own arm
        raise UserError(f"sweep.baseline: no arm is called {wanted!r}; there are {'; '.join(labels.values())}")
    return found


def meant(arms: Sequence[NamedArm], wanted: str) -> str | None:
    """Name of the arm that is called so, the first one where every group of peers has one; None if there is none.

    The most exact reading that any arm answers to counts: its label or name; whole parts (`optimizer=adam steps=100`);
    values (`cosine`); anything within its name. Raises UserError with the candidates where a group has several.
    """
    readings: tuple[Callable[[NamedArm], bool], ...] = (
        lambda arm: wanted in (arm.label, arm.name),
        lambda arm: f" {wanted} " in f" {arm.name} " or {*wanted.split()} <= {*_parts(arm)},
        lambda arm: {*wanted.split(" + ")} <= {*arm.choices.values(), *arm.label.split(" + ")},
        lambda arm: wanted in arm.name,
    )
    found = next(filter(None, ([arm for arm in arms if reads(arm)] for reads in readings)), [])
    for peers in group(arms, None):
        same = [arm for arm in peers.arms if arm in found]
        if len(same) > 1:
            candidates = "; ".join(arm.label for arm in same)
            raise UserError(
                f"sweep.baseline: {wanted!r} may be any of {candidates}; give one of these, or more parts, as in "
                f"'{same[0].name}'"
            )
    return found[0].name if found else None


def _parts(arm: NamedArm) -> Iterator[str]:
    """What may be said of it: every choice, its key in full or its last word, and the groups that it has none of."""
    yield from (f"{group}=none" for group in GROUPS if group not in arm.choices)
    for key, value in arm.choices.items():
        yield from (f"{key}={value}", f"{key.rpartition('.')[2]}={value}")
