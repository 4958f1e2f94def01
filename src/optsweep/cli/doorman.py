"""The doorman: takes a command line to its verb or to Hydra, and turns a user's mistake into one line."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optsweep.address import STORAGE_KEY, TRACKING_KEY
from optsweep.checks import shown
from optsweep.cli.completion import completions
from optsweep.cli.parser import of_sweep
from optsweep.cli.stock import check_jobs, check_stock, in_a_line
from optsweep.cli.table import VERBS
from optsweep.command import Command
from optsweep.config.arm import Arm
from optsweep.config.compose import axes_of, cells, check_overrides, compose, register
from optsweep.config.door import arm_of, arms_from
from optsweep.config.launchers import SECTION
from optsweep.config.package_files import PackageFiles
from optsweep.config.search_space import opened
from optsweep.config.wrong import of_hydra
from optsweep.errors import GoesOnError, SweepFailedError, UserError, first_line, nearest, without_secrets
from optsweep.imported import check_trusted
from optsweep.launcher import SweepLauncher, launcher_named
from optsweep.tracking.outage import DISK_FULL, StoreFailureError
from optsweep.yaml_files import circles_of_defaults, in_words

CONFIG = "pkg://optsweep.conf"
LONGEST = 1000
"""Characters of an error's line."""

MULTIRUN = frozenset({"-m", "--multirun"})
PLAN_KEYS = ("search.", "confirm.", "hydra.", "tracking.", "sweep.baseline", "sweep.retries", "sweep.allow")
"""Overrides that don't change what a sweep is about."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code. A user's mistake is one line on stderr and 2."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # a user's own task is a module here; behind all others, so it shadows none
    try:
        command = VERBS[arguments[0]](arguments[1:]) if arguments[0] in VERBS else arguments
        if command is not None:
            _hydra(list(command))
        sys.stdout.flush()  # while a reader that has gone is expected
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if MULTIRUN.intersection(arguments):
            _complain("nobody reads this command's output any more; the same command goes on")
            return 2
        # `optsweep suggest … | head`: the reader has what it wanted
    except SweepFailedError as error:
        _complain(str(error))
        return 1
    except GoesOnError as error:
        print(error, flush=True)
        return 3
    except Exception as error:
        line = _one_line(error)
        if line is None:
            raise
        _complain(line)
        return 2
    return 0


def _complain(line: str) -> None:
    """Say what is wrong, as the last line: after what was said on stdout, which is buffered in a file or a pipe."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.stderr.write(f"optsweep: {without_secrets(line)}\n")


# -- Hydra ---------------------------------------------------------------------------------------------------------


def _hydra(arguments: list[str]) -> None:
    """Compose the command's first cell, to know what its jobs share; then Hydra runs them, or does as it is told."""
    register()
    parsed = of_sweep(arguments)
    if parsed.shell_completion and parsed.overrides == ["query=bash"]:
        print(" ".join(completions(os.environ.get("COMP_LINE", ""), _completed_by_hydra)))
        return
    if arguments and parsed.overrides[:1] == arguments[:1] and "=" not in arguments[0] and arguments[0][0] not in "~+":
        raise UserError(
            f"{shown(arguments[0])}: no such verb{nearest(arguments[0], VERBS)}; there are {', '.join(VERBS)}"
        )
    check_overrides(parsed.overrides)
    if parsed.help or parsed.hydra_help or parsed.info:
        _main(Command(tuple(arguments), ()))
        return
    if not parsed.config_name and not any(o.lstrip("+").startswith("sweep.name=") for o in parsed.overrides):
        name = f"sweep.name={_made_up_name(parsed.overrides)}"
        first = arguments.index(parsed.overrides[0]) if parsed.overrides else len(arguments)
        arguments.insert(first, name)  # beside the others: Hydra wants them in a row
        parsed.overrides.append(name)
    if parsed.cfg or parsed.shell_completion or parsed.resolve:
        try:
            _main(Command(tuple(arguments), ()))
        except ValueError as error:  # flags that don't go together
            raise UserError(str(error).replace("one subcommand", "--shell-completion with one")) from None
        return
    folder = Path(parsed.config_dir) if parsed.config_dir else None
    config = compose(parsed.overrides, parsed.config_name or "config", folder)
    command = Command(tuple(arguments), tuple(axes_of(config, parsed.overrides)))
    launcher = _launcher_of(config)
    arm_of(config, command.axes)  # refused before Hydra writes into a folder of the sweep's name, if it is wrong
    if launcher is not None:
        register(launcher)
        _main(command)
    else:
        check_stock(str(OmegaConf.select(config, f"{SECTION}._target_")))
        jobs = cells(parsed.overrides, parsed.config_name or "config", folder)
        arms = arms_from(jobs, command.axes)
        check_jobs(config.hydra.launcher, arms)
        _among_strangers(command, arms)


def _completed_by_hydra(line: str) -> list[str]:
    """What Hydra makes of a command line's last word."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()), _variables(COMP_LINE=line):
        _main(Command(("-sc", "query=bash", "sweep.name=completion"), ()))
    return said.getvalue().split()


def _launcher_of(config: DictConfig) -> type[SweepLauncher[Any]] | None:
    """The launcher, if it is one of ours; its keys are checked.

    Raises UserError for them, and for what Hydra itself would run of this config and can't, or may not.
    """
    target = OmegaConf.select(config, f"{SECTION}._target_")
    if not target:
        raise UserError(f"{SECTION}: a group of keys is wanted; choose one with hydra/launcher=local")

    def walk(node: Any, path: str) -> None:
        for key, value in node.items() if isinstance(node, Mapping) else ():
            if key == "_target_" and str(value).partition(".")[0] not in ("hydra", "hydra_plugins"):
                check_trusted(str(value), f"{path}._target_")
            walk(value, f"{path}.{key}")

    walk(OmegaConf.to_container(config.hydra, resolve=False), "hydra")
    launcher = launcher_named(str(target))
    if launcher is not None:
        given = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        assert isinstance(given, dict)
        launcher.read({str(key): value for key, value in given.items() if key != "_target_"})
    return launcher


def _main(command: Command, arguments: Sequence[str] | None = None) -> None:
    """Hydra's main function, which reads sys.argv: the command's arguments, if no others are given.

    HYDRA_FULL_ERROR is its only way to let an exception through: else it prints several lines and exits. It is set for
    as long as Hydra runs, and tells nobody anything.
    """
    arguments, secrets = _without_secrets(opened(command.arguments if arguments is None else arguments))
    with _replaced(arguments, HYDRA_FULL_ERROR="1", **secrets):
        hydra.main(version_base="1.3", config_path=CONFIG, config_name="config")(command)()


def _among_strangers(command: Command, arms: Sequence[Arm]) -> None:
    """Under a stock launcher: make the stores, before jobs race for them, and write the report when all are done."""
    from optsweep import api
    from optsweep.launch.status import check_ended, first_failure
    from optsweep.launch.sweep import open_stores
    from optsweep.tracking.store import SweepNotFound
    from optsweep.written import check_report_folder

    arm = arms[0]
    check_report_folder(api.REPORTS / arm.sweep)
    studies, labels = open_stores(arms, command.line)
    PackageFiles.withdraw()
    starred = tuple(without_secrets(argument) for argument in command.arguments)  # jobs may lie in files as pickles
    try:
        _main(replace(command, arguments=starred, labels=labels), _with_addresses(command.arguments, arm))
    except BaseException:
        with contextlib.suppress(Exception):  # what went wrong first is said
            print(api.report(arm.tracking_uri, [arm.sweep], storage=arm.storage).summary)
        raise
    with contextlib.suppress(SweepNotFound):  # nothing ran, which is said below
        print(api.report(arm.tracking_uri, [arm.sweep], storage=arm.storage).summary)
    if (reason := first_failure(studies)) is not None:
        raise SweepFailedError(arm.sweep, reason)
    check_ended(studies, labels)


def _with_addresses(arguments: Sequence[str], arm: Arm) -> list[str]:
    """The arguments, and as one of them each address of a config file that has a password, so that it can be hidden.

    What stands in config files Hydra copies as it is.
    """
    first = next((i for i, said in enumerate(arguments) if "=" in said and said[0] != "-"), len(arguments))
    given = {said.partition("=")[0].lstrip("+") for said in arguments}
    stores = {TRACKING_KEY: arm.tracking_uri, STORAGE_KEY: arm.storage}
    secret = {key: text for key, text in stores.items() if key not in given and without_secrets(text) != text}
    more = ["{}='{}'".format(key, text.replace("'", r"\'")) for key, text in secret.items()]
    return [*arguments[:first], *more, *arguments[first:]]


def _without_secrets(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments with addresses that have a password taken from the environment, and that environment.

    Hydra writes its arguments into multirun.yaml as they are.
    """
    kept, secrets = [], {}
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+")
        if key in (TRACKING_KEY, STORAGE_KEY) and without_secrets(argument) != argument:
            (parsed,) = OverridesParser.create().parse_overrides([argument])
            if not parsed.is_sweep_override():
                variable = f"OPTSWEEP_{key.replace('.', '_').upper()}"
                secrets[variable] = str(parsed.value())
                argument = f"{argument.partition('=')[0]}=${{oc.env:{variable}}}"
        kept.append(argument)
    return kept, secrets


@contextlib.contextmanager
def _replaced(arguments: Sequence[str], **variables: str) -> Iterator[None]:
    """Other arguments and environment variables for what is called inside."""
    argv, sys.argv = sys.argv, ["optsweep", *arguments]
    try:
        with _variables(**variables):
            yield
    finally:
        sys.argv = argv


@contextlib.contextmanager
def _variables(**variables: str) -> Iterator[None]:
    """Other environment variables for what is called inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _made_up_name(overrides: Sequence[str]) -> str:
    """A name for a sweep without one: the same for the same question, however many trials are asked for."""
    question = sorted(o for o in overrides if not o.lstrip("+~").startswith(PLAN_KEYS))
    return "sweep-" + hashlib.sha256("\n".join(question).encode()).hexdigest()[:6]


# -- errors --------------------------------------------------------------------------------------------------------


def _one_line(error: BaseException) -> str | None:
    """What to tell the user, or None if the error is not the user's."""
    if isinstance(error, UserError):
        return _short(str(error))
    if isinstance(error, yaml.YAMLError):
        return f"a config file{in_words(error)}"
    if isinstance(error, RecursionError):
        folders = [folder for folder in (Path("conf"), Path("sweeps")) if folder.is_dir()]
        if circles := ", ".join(map(str, circles_of_defaults(folders))):
            return f"{circles}: the defaults of a config file lead back to it"
    if isinstance(error, StoreFailureError):
        return f"the store failed: {error}; what is finished is kept"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in DISK_FULL:  # from a write, which names no file
        return f"the disk is full ({error.strerror}); what is finished is kept, and the same command goes on with it"
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"a config file is not in UTF-8: {text}"
    if text.startswith("Invalid loaded object type"):
        return f"a config file holds no group of keys: {text}"
    if type(error).__module__.partition(".")[0] in ("sqlalchemy", "sqlite3", "mlflow", "optuna"):
        return f"the store failed: {first_line(error.__cause__ or error)[:300]}; what is finished is kept"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return of_hydra(error)
    return in_a_line(error)


def _short(text: str) -> str:
    """One line, of a length that a person reads; nothing in it that a terminal would obey."""
    line = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
