"""An arm: one cell of the grid, with all that its trials share. Frozen and validated, however it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from optsweep.address import read_address, tracking_address
from optsweep.checks import by_name, checked, either, in_steps, number, optional, refuse, text, whole
from optsweep.config.allowed import NOTHING, allowed
from optsweep.config.fields import Key, Keyed, Rest, keys_of, parts_of
from optsweep.config.sections import (
    FROM_TASK,
    MOST_TRIALS,
    AveragingConfig,
    DecayConfig,
    OptimizerConfig,
    ScheduleConfig,
    SearchConfig,
    SuggestConfig,
    TaskConfig,
    TrainerConfig,
)
from optsweep.errors import UserError, nearest, without_secrets
from optsweep.inference.looks import AUTO, Repeats, Seeds, most_of

FROM_ENVIRONMENT: Any = None
"""As `tracking.uri`: what MLFLOW_TRACKING_URI says, else the local store, which the arm puts in its place."""

GROUPS = ("task", "recipe", "optimizer", "schedule", "warmup", "weight_decay", "averaging")
"""Config groups whose choices make an arm."""


def _sweep_name(key: str, value: object) -> str:
    name = text(key, value)
    length = len(name.encode("utf-8", "replace"))
    if name.strip(". ") == "" or length > 200 or any(c in "/\\|" or not c.isprintable() for c in name):
        raise refuse(key, value, "1 to 200 printable characters (bytes of UTF-8), without slashes and bars")
    return name


def _tracking(key: str, value: object) -> str:
    """The address of an MLflow store; null is what MLflow's own variable says, or the local one."""
    if value is None:
        return tracking_address()
    read_address(key, address := text(key, value))
    return address


def _storage(key: str, value: object) -> str:
    """The address of a database that other processes see too."""
    if read_address(key, address := text(key, value)).is_server:
        raise UserError(
            f"{key}: {without_secrets(address)} is no database; give sqlite:///PATH or postgresql+psycopg://…"
        )
    return address


def _checkpoints(key: str, value: object) -> Path | None:
    """A folder, from the root: the working folder of who says it is another one elsewhere."""
    if value is None:
        return None
    allowed = "a folder that all machines of the sweep reach, or null (a place of each machine's own)"
    given = str(value) if isinstance(value, Path) else value
    if not isinstance(given, str) or not given.strip() or "://" in given or not given.isprintable():
        raise refuse(key, value, allowed)
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:  # of nobody here
        raise refuse(key, value, allowed) from None


def _words(key: str, value: object) -> Mapping[str, str]:
    """What tells an arm from its siblings, in words."""
    return {name: str(found) for name, found in by_name(key, value).items()}


@dataclass(frozen=True, kw_only=True)
class Arm(Keyed):
    """One cell of the grid. Raises UserError for sections that are right by themselves and have no meaning together."""

    choices: Mapping[str, str] = field(default_factory=dict)  # group → choice; none given: as sections are named
    axes: Mapping[str, str] = field(default_factory=dict)  # other overrides that tell this arm from its siblings
    task: TaskConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    decay: DecayConfig = field(default_factory=DecayConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    suggest: SuggestConfig = field(default_factory=SuggestConfig)
    confirm_seeds: Annotated[Seeds, Key("confirm.seeds", either(AUTO, whole, most=MOST_TRIALS))] = 8
    # a difference of test loss too small to matter; None: equality is never claimed
    confirm_delta: Annotated[float | None, Key("confirm.delta", optional(number, above=0.0))] = None
    sweep: Annotated[str, Key("sweep.name", _sweep_name)]
    seed: Annotated[int, Key("sweep.seed", checked(whole, low=0))] = 0
    baseline: Annotated[str | None, Key("sweep.baseline", optional(text))] = None
    # searches, each with seeds of its own
    repeats: Annotated[Repeats, Key("sweep.repeats", either(AUTO, whole, most=1000))] = 1
    retries: Annotated[int, Key("sweep.retries", checked(whole, low=0, most=1000))] = 1
    # what may differ between machines that train its trials
    allow: Annotated[tuple[str, ...], Key("sweep.allow", allowed)] = NOTHING
    tracking_uri: Annotated[str, Key("tracking.uri", _tracking)] = field(default=FROM_ENVIRONMENT, repr=False)
    storage: Annotated[str, Key("tracking.storage", _storage)] = field(default="sqlite:///mlruns/optuna.db", repr=False)
    # None: beside a storage's file, in ./mlruns where that is a server
    checkpoints: Annotated[Path | None, Key("tracking.checkpoints", _checkpoints)] = None
    yaml: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("choices", "axes"):
            self.fill(**{name: _words(name, vars(self)[name])})
        if not self.choices:
            self.fill(choices=self._section_names())
        if self.trainer.steps is FROM_TASK:
            self.fill(trainer=replace(self.trainer, steps=self.task.steps))
        self.fill(search=self.search.resolved(lanes=self.trainer.given_lanes, one_search=self.repeats == 1))
        _check_lengths(self)
        _check_combination(self)

    @property
    def name(self) -> str:
        """Unique within the sweep, and the same whatever other arms there are."""
        return " ".join(f"{key}={value}" for key, value in self.combination.items())

    @property
    def combination(self) -> Mapping[str, str]:
        """All that tells the arm from its siblings: choices, then axes."""
        return {**self.choices, **self.axes}

    @property
    def most_repeats(self) -> int:
        """How many searches there may be."""
        return most_of(self.repeats)

    def with_values(self, values: Mapping[str, Any]) -> Arm:
        """The arm with other values of some keys, as `{"trainer.clip_norm": 0.5, "task.width": 32}`.

        Raises UserError for a key that the arm doesn't have, naming the nearest, and for a value that isn't allowed.
        """
        places = self._places()
        own: dict[str, Any] = {}
        parts: dict[str, dict[str, Any]] = {}
        options: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            if key not in places:
                raise UserError(f"{key}: no such key{nearest(key, places)}")
            part, name, option = places[key]
            if option is not None:
                options.setdefault(part, {})[option] = value
            elif part:
                parts.setdefault(part, {})[name] = value
            else:
                own[name] = value
        if "task.steps" in values and self.trainer.steps == self.task.steps:
            parts["trainer"] = {"steps": FROM_TASK, **parts.get("trainer", {})}
        for part, changed in options.items():
            parts.setdefault(part, {})["options"] = {**getattr(self, part).options, **changed}
        return replace(self, **own, **{part: replace(getattr(self, part), **new) for part, new in parts.items()})

    def _section_names(self) -> dict[str, str]:
        """Group → what its section says it is, in the order of GROUPS."""
        names = {
            "task": self.task.name,
            "optimizer": self.optimizer.name,
            "schedule": self.schedule.name,
            "warmup": self.schedule.warmup,
            "weight_decay": self.decay.mode,
            "averaging": self.averaging.name,
        }
        return {group: name for group, name in names.items() if name != "none"}

    def _places(self) -> Mapping[str, tuple[str, str, str | None]]:
        """Key → (section's field, or "" for the arm's own; field; name of an option)."""
        places: dict[str, tuple[str, str, str | None]] = {}
        for part, cls in {"": type(self), **parts_of(type(self))}.items():
            for name, key in keys_of(cls).items():
                if isinstance(key, Rest):
                    held = getattr(getattr(self, part), name)
                    places |= {f"{key.path}.{option}": (part, name, option) for option in held}
                else:
                    places[key.path] = (part, name, None)
        return places


def _check_lengths(arm: Arm) -> None:
    if (batch_size := arm.task.batch_size) is not None:
        arm.trainer.check_batch(batch_size, f"task.batch_size={batch_size}")
    warmup, steps = arm.schedule.warmup_steps, arm.trainer.steps
    if warmup is not None and in_steps(warmup, steps) >= steps:
        allowed = f"fewer steps than the run has (trainer.steps={steps}), or a fraction below 1"
        raise refuse("warmup.steps", warmup, allowed)


def _check_combination(arm: Arm) -> None:
    """Refuse a value that is both fixed and searched; what rule and schedule refuse, build/combination.py finds."""
    if arm.confirm_seeds == AUTO and (arm.search.trials or arm.repeats != 1):
        raise UserError(
            "confirm.seeds: auto adds seeds to one setting and leaves out how lucky its search was; give a number, "
            "such as 3, and sweep.repeats=auto, which adds whole searches (auto is for search.trials=0)"
        )
    if arm.repeats != 1 and not arm.search.trials:
        raise UserError(
            f"sweep.repeats: {arm.repeats} repeats searches, and search.trials=0 has none; give 1, and more "
            f"confirm.seeds, or confirm.seeds=auto"
        )
    if arm.search.trials and arm.optimizer.lr is not None and "lr" in arm.search.space:
        raise UserError(f"optimizer.lr: {arm.optimizer.lr:g} is fixed, but search.space.lr asks to search it; give one")
    decay = arm.decay.value if arm.decay.mode != "none" else None
    if arm.search.trials and decay is not None and "weight_decay" in arm.search.space:
        raise UserError(
            f"weight_decay.value: {decay:g} is fixed, but search.space.weight_decay asks to search it; give one"
        )
