"""What our launchers share: all arms of a multirun are composed and checked first, and are then one sweep.

A further launcher is a class in `hydra_plugins/optsweep` with its options and its `run`, and a YAML in
`conf/hydra/launcher`. This is no part of `hydra_plugins`, whose modules Hydra's scan executes once more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_class
from omegaconf import DictConfig, Node, OmegaConf, open_dict, read_write

from optsweep.address import STORAGE_KEY, TRACKING_KEY
from optsweep.command import Command
from optsweep.config.fields import keys_of
from optsweep.config.launchers import SECTION, LauncherOptions
from optsweep.errors import SweepFailedError, UserError, nearest, without_secrets
from optsweep.written import Written

if TYPE_CHECKING:
    from optsweep.api import Finished
    from optsweep.config.arm import Arm
    from optsweep.launch.display import Display
    from optsweep.launch.events import Event, Observer

Options = TypeVar("Options", bound=LauncherOptions)


class SweepLauncher(Launcher, ABC, Generic[Options]):
    """Composes and validates all arms of a multirun first, then has them run as one sweep.

    The keys that it has in the config are the fields of `declared`.
    """

    declared: type[Options]

    def __init__(self, **given: Any) -> None:
        held = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in given.items()}
        self.options: Options = self.read(held)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Options:
        """The options of a config. Raises UserError that names the key."""
        known = keys_of(cls.declared)
        for key in given:
            if key not in known:
                raise UserError(f"{SECTION}.{key}: no such key{nearest(str(key), known)}; known: {', '.join(known)}")
        return cls.declared(**given)

    @abstractmethod
    def run(self, arms: Sequence[Arm], observe: Observer) -> Finished:
        """Run the sweep; what is said of it goes to `observe`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over."""
        assert isinstance(task_function, Command)
        hydra_context.config_loader = ComposedOnce(hydra_context.config_loader.get_search_path())
        self.hydra_context, self.command, self.config = hydra_context, task_function, config
        _star_out(config)
        self.written = Written(Path(config.hydra.sweep.dir) / "multirun.yaml")  # by Hydra's sweeper, after this

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the whole sweep; one JobReturn per arm."""
        from optsweep.config.door import arms_from

        terminal = _Terminal()
        loader = self.hydra_context.config_loader
        try:
            configs = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
            arms = arms_from(configs, self.command.axes)
            with terminal:
                finished = self.run(arms, terminal)
        except BaseException:  # Ctrl-C while a task is made too
            if not terminal.started:
                self.written.undo()
            raise
        print(finished.summary)
        if finished.result.failure is not None:
            raise SweepFailedError(finished.result.sweep, finished.result.failure)
        returns = []
        for overrides, config in zip(job_overrides, configs, strict=True):
            done = JobReturn(overrides=list(overrides), cfg=config, status=JobStatus.COMPLETED)
            done.return_value = finished.result
            returns.append(done)
        return returns


def launcher_named(target: str) -> type[SweepLauncher[Any]] | None:
    """The launcher of that dotted path; None for a stock one, and for what Hydra is going to refuse."""
    with suppress(Exception):
        found = get_class(target)
        return found if issubclass(found, SweepLauncher) else None
    return None


class _Terminal:
    """Shows a sweep. What that takes is imported when there is something to show, and workers are being started."""

    def __init__(self) -> None:
        self.started = False  # training
        self._display: Display | None = None

    def __call__(self, event: Event) -> None:
        from optsweep.launch.display import Display
        from optsweep.launch.events import Started

        self.started = self.started or isinstance(event, Started)
        if self._display is None:
            self._display = Display()
        self._display(event)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self._display is not None:
            self._display.__exit__(*error)


class ComposedOnce(ConfigLoaderImpl):
    """Keeps what it composes: Hydra's sweeper tries every job before the launcher is asked, which wants them again."""

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The config of a job of the one multirun that this is for."""
        job = tuple(sweep_overrides)
        if job not in self._composed:
            self._composed[job] = super().load_sweep_config(master_config, sweep_overrides)
        return self._composed[job]


def _star_out(config: DictConfig) -> None:
    """No password of a config file in the copy that Hydra's sweeper writes; the jobs are composed from the files."""
    with read_write(config), open_dict(config):
        for key in (TRACKING_KEY, STORAGE_KEY):
            group, _, name = key.partition(".")
            if OmegaConf.is_dict(held := config.get(group)) and isinstance(raw := held._get_node(name), Node):
                said = str(raw._value())
                if (shown := without_secrets(said)) != said:
                    held[name] = shown
