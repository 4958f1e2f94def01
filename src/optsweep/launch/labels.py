"""Names of arms for people: what tells an arm from its siblings, and which one is the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optsweep.config.arm import Arm
from optsweep.errors import UserError


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


def _short(key: str) -> str:
    """The last part of a key; all of it where that says too little, as in `warmup.steps` and `weight_decay.value`."""
    group, _, last = key.rpartition(".")
    return key if last in ("steps", "value") and group != "trainer" else last


def baseline_of(arms: Sequence[Arm], labels: Mapping[str, str], *, all_arms: bool) -> str | None:
    """Name of the arm that the others are held against; None: whichever the sweep has already, or its first."""
    wanted = arms[0].baseline
    if wanted is None:
        return None
    found = [arm.name for arm in arms if wanted in (labels[arm.name], arm.name) or wanted in arm.name]
    if not found and not all_arms:  # a stock launcher's job knows only its own arm
        return None
    if not found:
        raise UserError(f"sweep.baseline: no arm is called {wanted!r}; there are {'; '.join(labels.values())}")
    return found[0]
