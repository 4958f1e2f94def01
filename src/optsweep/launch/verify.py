"""Runs a share of a report's trials again and says whether they agree: a claim that checks itself."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from optsweep.build.assemble import Built, build_arm, device_of
from optsweep.build.machine import Machine
from optsweep.config.arm import GROUPS, Arm
from optsweep.config.door import read_arm
from optsweep.errors import UserError
from optsweep.launch.environment import environment
from optsweep.launch.pools.pool import Pool
from optsweep.launch.worker.inquiries import DiedError, Workbench
from optsweep.search.slots import seed_of
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.train.process import threads
from optsweep.train.run import Silent
from optsweep.train.trial import End, Outcome, Phase, Trial
from optsweep.yaml_files import check_yaml

TOLERANCE = 1e-3
"""Relative difference of a loss within which trials agree: machines round unlike, and training magnifies that."""


@dataclass(frozen=True)
class Rerun:
    """A trial that was run again."""

    arm: str  # label
    phase: Phase
    repeat: int
    slot: int
    stated: Mapping[str, float]  # by metric; not finite: diverged
    found: Mapping[str, float]

    @property
    def difference(self) -> float:
        """The largest relative difference of its losses; 0: bitwise equal, infinity: one of them diverged."""
        return max(relative_difference(value, self.found[key]) for key, value in self.stated.items())

    def __str__(self) -> str:
        said = [f"{key} {value!r}, again {self.found[key]!r}" for key, value in self.stated.items()]
        return f"{self.arm} · repeat {self.repeat}, {self.phase} {self.slot}: {'; '.join(said)}"


@dataclass(frozen=True)
class Verified:
    """What came out of running trials again."""

    reruns: tuple[Rerun, ...]
    of: int  # trials that could have been drawn
    tolerance: float
    elsewhere: tuple[str, ...]  # what differs from the machine of the results, in words

    @property
    def agree(self) -> bool:
        """Whether all do, within the tolerance."""
        return not self.disagreeing

    @property
    def disagreeing(self) -> tuple[Rerun, ...]:
        """Those that don't."""
        return tuple(rerun for rerun in self.reruns if not rerun.difference <= self.tolerance)

    @property
    def summary(self) -> str:
        """In a few lines."""
        exact = sum(rerun.difference == 0 for rerun in self.reruns)
        largest = max(rerun.difference for rerun in self.reruns)
        said = f"{len(self.reruns)} of {self.of} trials were run again: {exact} agree bitwise"
        near = len(self.reruns) - exact - len(self.disagreeing)
        said += f", {near} within {self.tolerance:g} (relative; largest difference {largest:.2g})" if near else ""
        said += f", {len(self.disagreeing)} don't agree" if self.disagreeing else ""
        lines = [f"{said}.", *(f"Elsewhere: {text}." for text in self.elsewhere), *map(str, self.disagreeing)]
        return "\n".join(lines)


def plain(found: Verified) -> dict[str, Any]:
    """What `optsweep verify --json` prints. Keys are only ever added."""
    reruns = [{**asdict(rerun), "difference": rerun.difference} for rerun in found.reruns]
    return {"agree": found.agree, **asdict(found), "reruns": reruns, "summary": found.summary}


def verify(results: Path, share: float = 0.1, seed: int = 0, tolerance: float = TOLERANCE) -> Verified:
    """Run a random share of the trials that finished or diverged again, at least one, here and one after the other.

    Raises UserError for a file that isn't a sweep's results.json, or lacks what runs a trial again.
    """
    if not 0 < share <= 1:
        raise UserError(f"--share: {share} is not allowed; give a number in (0, 1]")
    if not tolerance >= 0:
        raise UserError(f"--tolerance: {tolerance} is not allowed; give a number ≥ 0")
    content = _read(results)
    found = [(arm, trial) for group in content["groups"] for arm in group["arms"] for trial in _trials(arm)]
    if not found:
        raise UserError(f"{results}: no trial has finished")
    drawn = sorted(random.Random(seed).sample(range(len(found)), max(1, round(share * len(found)))))
    built: dict[str, tuple[Arm, Built]] = {}
    reruns = []
    for place in drawn:
        sheet, trial = found[place]
        key = sheet["config"]
        if key not in built:
            built = {key: _built(sheet, results)}  # one at a time: their data may be large
        reruns.append(_run_again(*built[key], sheet["label"], trial))
    arm = next(iter(built.values()))[0]
    devices = {trial.get("device") or sheet.get("device", "") for sheet, trial in (found[place] for place in drawn)}
    return Verified(tuple(reruns), len(found), tolerance, tuple(_elsewhere(content, arm, devices)))


@dataclass(frozen=True)
class ToVerify:
    """The request to do so; its arguments."""

    results: Path
    share: float
    seed: int
    tolerance: float

    def run(self, bench: Workbench) -> Verified:
        """As `verify` has it, for as long as its trials take."""
        bench.begin("running its trials again", math.inf)
        return verify(self.results, self.share, self.seed, self.tolerance)


def verify_aside(pool: Pool, request: ToVerify) -> Verified:
    """Have it done by a worker, which the code of the results' task may end. Raises UserError for that too."""
    try:
        return pool.ask(request)
    except DiedError as error:
        raise UserError(f"{request.results}: {error.at or 'it'}: {error.how}: its task's own code does that") from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder is there; name its results.json") from None
    except ValueError:
        raise UserError(f"{path}: it is no JSON; name the results.json of a report") from None
    if not isinstance(content, dict) or not {"sweeps", "groups"} <= content.keys():
        raise UserError(f"{path}: it holds no sweep's results")
    for group in content["groups"]:
        for arm in group["arms"]:
            if not arm.get("config") or "search" not in arm:
                label = arm["label"]
                raise UserError(f"{path}: it doesn't say how {label} was trained; the sweep's command again mends that")
    return content


def _trials(arm: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for trial in (*arm["search"], *arm["confirm"]):
        if trial["status"] in (Status.FINISHED, Status.DIVERGED):
            yield trial


def _built(sheet: Mapping[str, Any], results: Path) -> tuple[Arm, Built]:
    check_yaml(str(sheet["config"]).encode(), f"{results}: the config of {sheet['label']}")
    config = yaml.safe_load(sheet["config"])
    chosen = {key: value for key, value in sheet["choices"].items() if key in GROUPS}
    axes = {key: value for key, value in sheet["choices"].items() if key not in GROUPS}
    try:
        arm = read_arm(config, chosen, axes, sheet["config"])
        if arm.trainer.given_lanes is None:
            arm = replace(arm, trainer=replace(arm.trainer, lanes=sheet["facts"].get("lanes", 1)))
        return arm, build_arm(arm)
    except UserError as error:
        raise UserError(f"{results}: {sheet['label']} can't be built here ({error})") from None


def _run_again(arm: Arm, built: Built, label: str, trial: Mapping[str, Any]) -> Rerun:
    params = built.space.restored(
        {key: _value(built, key, text) for key, text in trial["params"].items() if key in built.space.dimensions}
    )
    phase = Phase(trial["phase"])
    own = Trial(
        hyper=built.space.hyper(params),
        seed=seed_of(arm.seed, phase.value, trial["seed"]),
        test=phase is Phase.CONFIRM,
    )
    with threads(arm.trainer.threads):
        (outcome,) = built.workload_for(params).train([own], Silent())
    stated = _stated(trial)
    again = _found(outcome)
    return Rerun(label, phase, trial["repeat"], trial["slot"], stated, {key: again[key] for key in stated})


def _value(built: Built, key: str, text: str) -> Any:
    dimension = built.space.dimensions[key]
    if dimension.number is not None:
        return float(text)
    return next((choice for choice in dimension.choices if str(choice) == text), text)


def _stated(trial: Mapping[str, Any]) -> dict[str, float]:
    """Its losses; those of a trial that diverged are infinite, wherever that was noticed."""
    if trial["status"] == Status.DIVERGED:
        return {names.VAL_LOSS: math.inf}
    held = {names.VAL_LOSS: trial["value"]} if "value" in trial else trial["metrics"]
    return {key: float(held[key]) for key in (names.VAL_LOSS, names.TEST_LOSS) if held.get(key) is not None}


def _found(outcome: Outcome) -> dict[str, float]:
    diverged = outcome.end is End.DIVERGED
    test = math.nan if outcome.test_loss is None else outcome.test_loss
    return {
        names.VAL_LOSS: math.inf if diverged else outcome.val_loss,
        names.TEST_LOSS: math.inf if diverged else test,
    }


def relative_difference(stated: float, found: float) -> float:
    """0 where both are the same, or no numbers; infinite where one of them isn't finite."""
    if stated == found or (math.isnan(stated) and math.isnan(found)):
        return 0.0
    if not (math.isfinite(stated) and math.isfinite(found)):
        return math.inf
    return abs(stated - found) / max(abs(stated), abs(found))


def _elsewhere(content: Mapping[str, Any], arm: Arm, devices: Collection[str]) -> Iterator[str]:
    """What of the machine may make numbers differ; `devices`: those of the trials, of which there may be several."""
    ours = Machine.of(device_of(arm.trainer.device)).device
    told = {ours, ""}.union(
        *({sweep["environment"].get(k) for k in ("device", "processor")} for sweep in content["sweeps"])
    )
    for device in sorted(set(devices) - told):
        yield f"some of these trials are of device {device}, here is {ours}"
    here = environment(str(device_of(arm.trainer.device)))
    for sweep in content["sweeps"]:
        there = sweep["environment"]
        torch_there, torch_here = there.get("packages", {}).get("torch"), version("torch")
        if torch_there and torch_there != torch_here:
            yield f"the results are of torch {torch_there}, here is {torch_here}"
        for key, word in (("device", "device"), ("processor", "processor")):
            ours = vars(here)[key]
            if there.get(key) and there[key] != ours:
                yield f"the results are of {word} {there[key]}, here is {ours}"
