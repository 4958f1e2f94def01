"""Launchers of other packages: ours win over theirs, their jobs can begin, what can't end well is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.launcher import Launcher

from optsweep.cli import doorman
from optsweep.cli.stock import check_stock, in_a_line
from optsweep.config import compose
from optsweep.config.package_files import PackageFiles
from optsweep.errors import UserError, without_secrets
from optsweep.launch.status import FINISHED, PLANNED, check_ended
from optsweep.search.studies import Studies


def test_ours_wins_over_a_plugin_s_of_the_same_name() -> None:
    compose.register()
    theirs = {"_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher", "ray": {"init": {}}}
    ConfigStore.instance().store(group="hydra/launcher", name="local", node=theirs)
    launcher = compose.compose(["sweep.name=any"]).hydra.launcher
    assert launcher._target_ == "hydra_plugins.optsweep.local_launcher.LocalLauncher"
    assert "ray" not in launcher


def test_a_class_of_another_package_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[type[Any]] = []
    theirs = type("LocalLauncher", (Launcher,), {"__module__": "hydra_plugins.hydra_submitit_launcher"})
    ours = type("LocalLauncher", (Launcher,), {"__module__": "hydra_plugins.optsweep"})
    plugins = SimpleNamespace(discover=lambda kind: [theirs], register=asked.append)
    monkeypatch.setattr(Plugins, "instance", lambda: plugins)
    compose.register(ours)
    assert ours in asked


def test_jobs_of_other_processes_can_take_the_state_of_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    compose.register()
    PackageFiles.withdraw()
    state = cloudpickle.dumps(Singleton.get_state())
    monkeypatch.setattr(Singleton, "_instances", {})
    Singleton.set_state(cloudpickle.loads(state))


@pytest.mark.parametrize("theirs", ["ray_aws_launcher.RayAWSLauncher", "ray_launcher.RayLauncher"])
def test_one_that_can_t_serve_is_refused_and_ours_is_named(theirs: str) -> None:
    with pytest.raises(UserError, match="give hydra/launcher=ray"):
        check_stock(f"hydra_plugins.hydra_ray_launcher.{theirs}")


def test_others_are_not() -> None:
    check_stock("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher")


RULE = "-" * 40
CANCELLED = f"""Job 9_0 (task: 0) with path r.pkl
has not produced any output (state: CANCELLED)
Error stream produced:
{RULE}
log"""
FAILED = f"""Job (task=0) failed during processing with trace:
{RULE}
Traceback …
ImportError: no optsweep

{RULE}
You can check"""


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("FailedJobError", "sbatch: no\nmore", "sbatch: no"),
        ("FailedJobError", FAILED, "Job (task=0) failed during processing: ImportError: no optsweep"),
        (
            "UncompletedJobError",
            CANCELLED,
            "Job 9_0 (task: 0) has not produced any output (state: CANCELLED)",
        ),
    ],
)
def test_what_a_launcher_says_is_a_line(name: str, text: str, line: str) -> None:
    error = type(name, (RuntimeError,), {"__module__": "submitit.core.utils"})(text)
    assert str(in_a_line(error)).startswith(f"hydra/launcher: {line}; what is finished is kept")
    assert in_a_line(RuntimeError("of ours")) is None


def test_a_launcher_that_comes_back_early_is_no_success(tmp_path: Path) -> None:
    studies = Studies.open(f"sqlite:///{tmp_path}/optuna.db", "s")
    with pytest.raises(UserError, match="came back before its jobs had ended \\(one, of 1\\)"):
        check_ended(studies, {"a": "one"})
    for note in (PLANNED, FINISHED):
        studies.set_note("a", note, [3, 2, 1])
    check_ended(studies, {"a": "one"})


@pytest.mark.parametrize("given", [[], ["tracking.storage='postgresql://u:typed@h/s'"]])
def test_a_password_of_a_config_file_is_taken_away_as_a_typed_one(given: list[str]) -> None:
    arm: Any = SimpleNamespace(tracking_uri="http://host:5000", storage="postgresql://u:held@h/s")
    arguments = doorman._with_addresses(["-m", "sweep.name=s", *given], arm)
    kept, secrets = doorman._without_secrets(arguments)
    assert [without_secrets(argument) for argument in kept] == kept
    assert secrets == {"OPTSWEEP_TRACKING_STORAGE": "postgresql://u:typed@h/s" if given else arm.storage}
