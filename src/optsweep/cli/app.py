"""The command line: Hydra's entry point with a doorman, and the verbs report, status and suggest."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optsweep.config.arm import GROUPS, Arm, read_arm
from optsweep.config.search_space import opened
from optsweep.errors import UserError, nearest

CONFIG = "pkg://optsweep.conf"
AXES_VARIABLE = "OPTSWEEP_AXES"
PLAN_KEYS = ("search.", "confirm.", "hydra.", "tracking.", "sweep.baseline", "sweep.retries")
"""Overrides that don't change what a sweep is about."""

DEFAULT_URI = "sqlite:///mlruns/mlflow.db"
DEFAULT_STORAGE = "sqlite:///mlruns/optuna.db"


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code. A user's mistake is one line on stderr and 2."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a user's own task is a module here; behind all others, so it shadows none
    try:
        if arguments[0] in _VERBS:
            return _VERBS[arguments[0]](arguments[1:])
        return _hydra(list(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `optsweep suggest … | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = _one_line(error)
        if line is None:
            raise
        sys.stderr.write(f"optsweep: {line}\n")
        return 2


# -- Hydra ---------------------------------------------------------------------------------------------------------


class SweepCallback(Callback):
    """Prepares what the jobs of a multirun share."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the axes where jobs in other processes find them; make the stores before those jobs race for it."""
        os.environ[AXES_VARIABLE] = json.dumps(_axes(config))
        if "optsweep" not in config.hydra.launcher._target_:
            from optsweep.search.studies import Studies
            from optsweep.tracking import writer as tracking

            Studies.open(config.tracking.storage, config.sweep.name)
            tracking.check(config.tracking.uri)
            tracking.Tracker(config.tracking.uri, config.sweep.name).sweep_run()
            _stock_sweeps[config.sweep.name] = config.tracking.uri


def _hydra(arguments: list[str]) -> int:
    flags = [a for a in arguments if a.startswith("-")]
    overrides = [a for a in arguments if not a.startswith("-")]
    named = any(a.startswith(("sweep.name=", "+sweep.name=", "++sweep.name=")) for a in overrides)
    own_config = any(f in ("-cn", "--config-name") or f.startswith("--config-name=") for f in flags)
    if not named and not own_config:
        arguments = [*arguments, f"sweep.name={_made_up_name(overrides)}"]
    _register_plugins()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors arrive here, and not as several lines
    sys.argv = ["optsweep", *opened(arguments)]
    _stock_sweeps.clear()
    try:
        hydra.main(version_base="1.3", config_path=CONFIG, config_name="config")(_job)()
    finally:  # failures included
        for name, uri in _stock_sweeps.items():
            from optsweep.launch.sweep import finish_report

            with contextlib.suppress(ValueError):  # nothing ran
                finish_report(uri, name)
    return 0


def _register_plugins() -> None:
    """Tell Hydra of the plugins: it finds them by itself, but not in an editable installation."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.plugin import Plugin

    from hydra_plugins.optsweep.local_launcher import LocalLauncher
    from hydra_plugins.optsweep.search_path import OptsweepSearchPath

    known = {cls.__qualname__ for cls in Plugins.instance().discover(Plugin)}
    for cls in (LocalLauncher, OptsweepSearchPath):
        if cls.__qualname__ not in known:
            Plugins.instance().register(cls)


_stock_sweeps: dict[str, str] = {}
"""Tracking addresses of sweeps under a stock launcher, by name: their report is written when all jobs are done."""


def _job(config: DictConfig) -> Any:
    """One Hydra job under a stock launcher: plans and works its own arm in this process."""
    from optsweep.launch.sweep import run_sweep

    full = OmegaConf.create({**config, "hydra": HydraConfig.get()})
    arm = arm_of(full)
    return run_sweep([arm], workers=0, report=False, alone=True)


def arm_of(config: DictConfig) -> Arm:
    """The arm that a composed config (with its `hydra` node) describes."""
    choices = {group: str(config.hydra.runtime.choices.get(group, "none")) for group in GROUPS}
    axes = json.loads(os.environ.get(AXES_VARIABLE) or json.dumps(_axes(config)))
    values = {key: OmegaConf.select(config, key) for key in axes}
    with_node = {key: config[key] for key in config if key != "hydra"}
    plain = OmegaConf.to_container(OmegaConf.create(with_node), resolve=True)
    assert isinstance(plain, dict)
    yaml = OmegaConf.to_yaml(OmegaConf.create(plain))
    return read_arm({str(k): v for k, v in plain.items()}, choices, {k: str(v) for k, v in values.items()}, yaml)


def _axes(config: DictConfig) -> list[str]:
    """Keys, other than groups, that the multirun sweeps over: they tell arms of the same choices apart."""
    overrides = [str(o) for o in config.hydra.overrides.task]
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    overrides += [f"{key}={value}" for key, value in params.items()]
    parsed = OverridesParser.create().parse_overrides(overrides)
    keys = [o.key_or_group for o in parsed if o.is_sweep_override()]
    return sorted({key for key in keys if key not in GROUPS})


def _made_up_name(overrides: Sequence[str]) -> str:
    """A name for a sweep without one: the same for the same question, however many trials are asked for."""
    question = sorted(o for o in overrides if not o.lstrip("+~").startswith(PLAN_KEYS))
    return "sweep-" + hashlib.sha256("\n".join(question).encode()).hexdigest()[:6]


def _one_line(error: BaseException) -> str | None:
    """What to tell the user, or None if the error is not the user's."""
    from hydra.errors import HydraException

    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, yaml.YAMLError):
        return " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = str(error)
    if type(error).__module__.partition(".")[0] in ("sqlalchemy", "sqlite3", "mlflow", "optuna"):
        return f"the store failed: {text.splitlines()[0][:300]}; what is finished is kept"
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return None
    if match := re.search(r"Could not find '([\w/]+)/([^']+)'.*?Available options in '[^']+':\s*(.*)", text, re.S):
        group, choice, options = match[1], match[2], match[3].split()
        return f"{group}={choice}: no such choice{nearest(choice, options)}; there are {', '.join(options)}"
    if match := re.search(r"Cannot find primary config '([^']+)'", text):
        names = _sweep_files()
        return f"-cn {match[1]}: no such sweep{nearest(match[1], names)}; there are {', '.join(names)}"
    if match := re.search(r"Could not (?:override|append to config[^']*) '([^']+)'", text):
        key = match[1]
        return f"{key}: no such key{nearest(key, _known_keys())}; optsweep --cfg job shows all of them"
    if match := re.search(r"Missing mandatory value: ([\w.]+)", text):
        return f"{match[1]}: a value is missing"
    return " ".join(text.split())[:300]


def _sweep_files() -> list[str]:
    from importlib.resources import files

    folders = [Path(str(files("optsweep.sweeps"))), Path.cwd() / "sweeps"]
    return sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})


def _known_keys() -> list[str]:
    """All keys of the default config, and the groups."""

    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, Mapping):
            return [path]
        return [path, *(k for key, value in node.items() for k in walk(value, f"{path}.{key}" if path else key))]

    plain = OmegaConf.to_container(compose([]), resolve=False)
    return [*GROUPS, *walk(plain, "")]


def compose(overrides: Sequence[str], name: str = "config") -> DictConfig:
    """Compose a config (or a sweep, by its name) without running anything, `hydra` node included."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    _register_plugins()
    GlobalHydra.instance().clear()
    with initialize_config_module("optsweep.conf", version_base="1.3"):
        return hydra_compose(name, opened(overrides), return_hydra_config=True)


# -- verbs ---------------------------------------------------------------------------------------------------------


def _parser(verb: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"optsweep {verb}", description=description)
    parser.add_argument("--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_URI))
    return parser


def _report(arguments: Sequence[str]) -> int:
    parser = _parser("report", "Write the report of one or several sweeps again.")
    parser.add_argument("sweeps", nargs="+", metavar="NAME")
    parser.add_argument("--out", type=Path, help="folder (default: reports/NAME)")
    options = parser.parse_args(arguments)
    from optsweep.launch.environment import num_cores
    from optsweep.report import write_report
    from optsweep.tracking.writer import check

    check(options.tracking_uri, create=False)
    out = options.out or Path("reports") / "+".join(options.sweeps)
    try:
        print(write_report(options.tracking_uri, options.sweeps, out, processes=num_cores()).summary)
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"--out: {out} can't be written ({error})") from None
    return 0


def _status(arguments: Sequence[str]) -> int:
    parser = _parser("status", "How far a sweep is.")
    parser.add_argument("sweep", metavar="NAME")
    parser.add_argument("--storage", default=DEFAULT_STORAGE)
    options = parser.parse_args(arguments)
    from optsweep.cli.status import print_status

    print_status(options.storage, options.sweep)
    return 0


def _suggest(arguments: Sequence[str]) -> int:
    from optsweep.build.assemble import build_task, task_facts
    from optsweep.cli.suggest import print_suggestions

    as_json = "--json" in arguments
    overrides = [a for a in arguments if a != "--json"]
    arm = arm_of(compose([*overrides, "sweep.name=suggest"]))
    print_suggestions(arm, task_facts(arm, build_task(arm.task)), as_json=as_json)
    return 0


_VERBS = {"report": _report, "status": _status, "suggest": _suggest}
