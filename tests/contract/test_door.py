"""A user's mistake: one line that names the key, exit code 2, before anything is written or trained."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from optsweep import api
from optsweep.cli import doorman
from optsweep.cli.doorman import run
from optsweep.command import Command
from optsweep.config.arm import Arm
from optsweep.config.compose import compose
from optsweep.config.door import arm_of, arms_from
from optsweep.errors import UserError
from optsweep.tracking.outage import StoreFailureError

BASE = [
    *("task=digits_mlp", "search.trials=2", "confirm.seeds=1", "sweep.name=bad", "trainer.steps=10"),
    "hydra.launcher.workers=0",  # what a worker would refuse is refused here, and sooner
]

MISTAKES = [
    (["optimzer=adamw"], "optimzer", "did you mean optimizer?"),
    (["optimizer=adamww"], "optimizer=adamww", "did you mean adamw?"),
    (["trainer.stepz=10"], "trainer.stepz", "did you mean trainer.steps?"),
    (["sweep.workers=2"], "sweep.workers", "did you mean hydra.launcher.workers?"),
    (["sweep.trials=2"], "sweep.trials", "did you mean search.trials?"),
    (["+trainer.speed=10"], "trainer.speed", "no such key"),
    (["trainer.steps=many"], "trainer.steps", "whole number ≥ 2"),
    (["trainer.rungs=0"], "trainer.rungs", "whole number ≥ 1"),
    (["optimizer.lr=0"], "optimizer.lr", "> 0"),
    (["optimizer.lr=-1e-3"], "optimizer.lr", "> 0"),
    (["optimizer.lr=nan"], "optimizer.lr", "> 0"),
    (["optimizer.beta1=1.5"], "optimizer.beta1", "0 ≤ value < 1"),
    (["+optimizer.beta3=0.5"], "optimizer.beta3", "no such option"),
    (["optimizer.learning_rate=0.1"], "optimizer.learning_rate", "known: lr, beta1"),
    (["task=own"], "task._target_", "a value is missing; give task._target_=MODULE.NAME"),
    (["sweep.name=größe"], "sweep.name", "can't be read (at 'ö'); quote what is no plain word"),
    (["schedule.final=low"], "schedule.final", "a number ≥ 0 and ≤ 1"),
    (["schedule=plateau", "schedule.factor=2"], "schedule.factor", "a number > 0 and < 1"),
    (["warmup=linear", "warmup.steps=1.0"], "warmup.steps", "a fraction below 1"),
    (["warmup=linear", "warmup.steps=10"], "warmup.steps", "trainer.steps=10"),
    (
        ["warmup=linear", "warmup.steps=-1"],
        "warmup.steps",
        "≥ 1, or a fraction of the run > 0.0 and ≤ 1.0, 0, or suggested",
    ),
    (["search.space.lr.low=1e-2", "search.space.lr.high=1e-3"], "search.space.lr", "not below"),
    (["search.space.lr.low=0", "search.space.lr.high=1e-3"], "search.space.lr.low", "> 0"),
    (["search.space.beta2.low=0.9", "search.space.beta2.high=1.5"], "search.space.beta2.high", "1.5"),
    (["search.over=[lr,momentum]"], "search.space.momentum", "no such hyperparameter"),
    (["search.sampler=cma"], "search.sampler", "tpe, gp, quasi-random"),
    (["confirm.seeds=0"], "confirm.seeds", "whole number ≥ 1"),
    (["confirm.seeds=2.5"], "confirm.seeds", "whole number ≥ 1, or auto"),
    (["confirm.seeds=atuo"], "confirm.seeds", "whole number ≥ 1, or auto"),
    (["search.trials=-1"], "search.trials", "whole number ≥ 0"),
    (["trainer.device=gpu"], "trainer.device", "auto, cpu, cuda"),
    (["trainer.device=cuda:99"], "trainer.device", "not on this machine"),
    (["trainer.precision=fp16"], "trainer.precision", "fp32, bf16"),
    (["trainer.accumulate=7"], "trainer.accumulate", "not divisible"),
    (["trainer.accumulate=7", "task.batch_size=full"], "trainer.accumulate", "samples is not divisible by 7"),
    (["confirm.delta=0"], "confirm.delta", "> 0"),
    (["suggest.deep=1"], "suggest.deep", "true or false"),
    (["task.batch_size=0"], "task.batch_size", "or full"),
    (["task.batch_size=100000"], "task.batch_size", "training samples"),
    (["+task.widht=3"], "task.widht", "did you mean width?"),
    (["task._target_=no.such.Task"], "task._target_", "can't be imported"),
    (["optimizer=external", "optimizer._target_=torch.nn.Linear"], "optimizer._target_", "torch.optim, optsweep"),
    (["optimizer=external", "optimizer._target_=torch.optim.LBFGS"], "LBFGS", "closure"),
    (
        ["optimizer=external", "optimizer._target_=torch.optim.SGD", "schedule=schedule_free"],
        "schedule=",
        "external optimizer",
    ),
    (["weight_decay.value=0.1"], "weight_decay.value: 0.1", "counts for nothing with weight_decay=none; give"),
    (["optimizer=adamw", "weight_decay=l2"], "weight_decay=l2", "optimizer=adam"),
    (["optimizer.lr=1e-3", "search.space.lr.low=1e-4", "search.space.lr.high=1e-2"], "optimizer.lr", "fixed"),
    (
        [
            "weight_decay=decoupled",
            "weight_decay.value=0.1",
            "search.space.weight_decay.low=1e-2",
            "search.space.weight_decay.high=1",
        ],
        "weight_decay.value: 0.1",
        "fixed",
    ),
    (["optimizer.lr=1e-3"], "search.trials", "search=none"),
    (["tracking.uri=http://127.0.0.1:9"], "tracking.uri", "no MLflow server answers"),
    (["tracking.uri=sqlite:///blocked/mlflow.db"], "tracking.uri", "blocked"),
    (["tracking.storage=sqlite:///blocked/optuna.db"], "tracking.storage", "blocked"),
    (["sweep.name=a/b"], "sweep.name", "slashes"),
    (["sweep.baseline=nobody"], "sweep.baseline", "nobody"),
    (["hydra.launcher.workers=-1"], "hydra.launcher.workers", "whole number"),
    (["optimizer=adamw,adamw"], "twice", "optimizer=adamw"),
    (["optimizer=external", "optimizer._target_=torch.optim.SGD", "averaging=ema"], "averaging=ema", "external"),
    (["averaging=ema", "averaging.ema_decay=2"], "averaging.ema_decay", "value < 1"),
    (["averaging=ema", "schedule=schedule_free"], "averaging=ema", "averages already"),
    (["schedule=one_cycle", "warmup=linear"], "warmup=linear", "one_cycle"),
    (["schedule=schedule_free", "search.over=[lr,beta1]"], "beta1", "averaging_beta"),
    (["optimizer=momentum", "schedule=schedule_free", "search.over=[lr,dampening]"], "dampening", "averaging_beta"),
    (["optimizer=muon", "schedule=schedule_free", "search.over=[lr,aux_beta1]"], "aux_beta1", "averaging_beta"),
    (["optimizer=lion", "schedule=schedule_free", "search.over=[lr,beta2]"], "beta2", "averaging_beta"),
    (["-cn", "soap_vs_adam"], "-cn soap_vs_adam", "there are"),
    (["task=null"], "task=null", "there are breast_cancer"),
    (["-m", "schedule=cosine,null"], "schedule=null", "there are constant"),
    (["~trainer.lanes"], "trainer.lanes", "a value is missing"),
    (["sweep=null"], "sweep: ", "a group of keys is wanted"),
    (["-m", "schedule=glob(zz*)"], "schedule=glob(zz*)", "nothing to sweep over"),
    (["-m", "hydra/launcher=basic", "sweep.name=bad", "trainer.lanes=0,1"], "trainer.lanes", "whole number ≥ 1"),
    (["task=text", "task.path=5"], "task.path: 5", "a string, or null"),
    (["-cd", "nowhere"], "--config-dir", "no folder nowhere"),
    (["suggest", "optimizer=null"], "optimizer=null", "there are adadelta"),
    (["hydra.launcher=null"], "hydra.launcher", "hydra/launcher=local"),
    (["sweep.name=../../evil"], "sweep.name", "without slashes"),
    (["sweep.name='a\u202eb'"], "sweep.name", "printable"),
    (["tracking.storage='sqlite://'"], "tracking.storage", "one process only"),
    (["tracking.uri='sqlite:///:memory:'"], "tracking.uri", "one process only"),
    (["search.space.lr={low:1e-300,high:1e300}"], "search.space.lr.low", "1e-18"),
    (["optimizer=soap", "optimizer.refresh=7.5"], "optimizer.refresh", "whole number"),
    (["task._target_=quits.Task"], "task._target_", "quits.py:2, in <module>: SystemExit: 3"),
    (["-m", "task=scalar"], "conf/task/scalar.yaml", "no group of keys"),
    (["-m", "task=latin"], "conf/task/latin.yaml", "UTF-8"),
    (["--resolve"], "--resolve", "--cfg"),
    (["--shell-completion"], "--shell-completion", "install"),
    (["report", "nothing"], "no store", "run a sweep first"),
    (["status", "nothing"], "no store", "run a sweep first"),
]


@pytest.mark.parametrize(("arguments", "named", "said"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_mistakes_get_one_line_and_exit_code_2(
    arguments: list[str],
    named: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "a" / "folder"  # with room above it, for names that lead out
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "blocked").write_text("a file where a folder is wanted")
    (folder / "quits.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "conf" / "task").mkdir(parents=True)
    (folder / "conf" / "task" / "scalar.yaml").write_text("5\n")
    (folder / "conf" / "task" / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    monkeypatch.syspath_prepend(folder)
    keys = {a.partition("=")[0] for a in arguments}
    base = [] if arguments[0][0] == "-" or "=" not in arguments[0] else BASE
    code = run([*(b for b in base if b.partition("=")[0] not in keys), *arguments])
    err = capfd.readouterr().err
    assert code == 2, err
    assert err.startswith("optsweep: ")
    assert err.count("\n") == 1, err
    assert named in err
    assert said in err
    assert not (folder / "mlruns").exists(), "Hydra's own folder is a trace too"
    assert sorted(path.name for path in tmp_path.rglob("*.*") if path.suffix != ".pyc") == [
        "latin.yaml",
        "quits.py",
        "scalar.yaml",
    ]


def test_a_disk_that_is_full_when_hydra_writes_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def save(config: object, path: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(OmegaConf, "save", save)
    assert run(["-m", *BASE]) == 2
    err = capfd.readouterr().err
    assert err.startswith("optsweep: the disk is full")
    assert err.count("\n") == 1, err


def arms_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Arm]:
    """The arms that a command would run."""
    found: list[Arm] = []

    def run_nothing(arms: Sequence[Arm], **_: object) -> None:
        found.extend(arms)
        raise UserError("that is all")

    monkeypatch.setattr(api, "run", run_nothing)
    assert run(arguments) == 2
    return found


def test_a_multirun_leaves_nothing_behind_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["-m", "task=digits_mlp", "search=none", "sweep.name=one"]
    environment, argv = dict(os.environ), list(sys.argv)
    first = arms_of([*base, "task.width=8,16", "optimizer.beta1=0.8"], monkeypatch)
    assert [arm.axes for arm in first] == [{"task.width": "8"}, {"task.width": "16"}]
    assert dict(os.environ) == environment
    assert sys.argv == argv
    second = arms_of([*base, "optimizer=sgd,momentum"], monkeypatch)
    assert [arm.axes for arm in second] == [{}, {}]
    assert arm_of(compose(base[1:])).axes == {}


def test_a_sweep_file_s_axes_tell_its_arms_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = arms_of(["-cn", "soap_vs_adamw", "trainer.clip_norm=1,2"], monkeypatch)
    assert {tuple(arm.axes) for arm in found} == {("task.batch_size", "trainer.clip_norm")}
    assert len({arm.name for arm in found}) == len(found) == 8


def test_an_axis_without_a_value_or_with_a_truth_is_named_as_it_is_typed() -> None:
    cells = [["trainer.clip_norm=null", "trainer.deterministic=true"], ["trainer.clip_norm=1.5"]]
    axes = ["trainer.clip_norm", "trainer.deterministic"]
    found = [arm_of(compose(["sweep.name=one", *cell]), axes).axes for cell in cells]
    assert [held["trainer.clip_norm"] for held in found] == ["null", "1.5"]
    assert [held["trainer.deterministic"] for held in found] == ["true", "false"]


def test_a_job_in_another_process_knows_the_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Arm] = []
    monkeypatch.setattr("optsweep.launch.sweep.run_sweep", lambda arms, **_: found.extend(arms))
    command = pickle.loads(pickle.dumps(Command(("-m",), ("task.width",))))
    config = compose(["task=digits_mlp", "task.width=16", "sweep.name=one"])
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    command(OmegaConf.create({key: value for key, value in config.items() if key != "hydra"}))
    (arm,) = found
    assert arm.axes == {"task.width": "16"}
    assert arm.task.options["width"] == 16


def test_an_address_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`optsweep status` looks where a sweep writes, unless told otherwise."""
    monkeypatch.chdir(tmp_path)
    assert run(["status", "nothing"]) == 2
    storage = str(compose(["sweep.name=one"]).tracking.storage)
    assert storage.removeprefix("sqlite:///") in capsys.readouterr().err


def test_suggestions_are_values_that_the_command_line_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["suggest", "task=digits_mlp", "optimizer=adamw", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = api.suggest(arm_of(compose(["task=digits_mlp", "optimizer=adamw", "sweep.name=any"])))
    assert [s["key"] for s in printed["suggestions"]] == [s.key for s in found.suggestions]
    assert {"lr", "weight_decay"} <= {s.key for s in found.suggestions}
    assert printed["facts"]["num_samples"] == found.facts.num_samples == 1079


def test_help_is_instant_because_it_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['optsweep', '--help']\ntry:\n import optsweep.__main__ as m; m.main()\n" + (
        "except SystemExit: pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'hydra', 'mlflow', 'optuna', 'numpy'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "\n  report NAME" in out
    assert out.endswith("[]\n")


@pytest.mark.parametrize("broken", [True, False], ids=["jobs", "report"])
def test_under_a_stock_launcher_the_first_error_is_said_and_no_report_is_none(
    broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm: Any = SimpleNamespace(tracking_uri="sqlite:///t.db", storage="sqlite:///s.db", sweep="s")
    monkeypatch.setattr("optsweep.launch.sweep.open_stores", lambda arms, command: (None, {}))
    monkeypatch.setattr("optsweep.launch.status.first_failure", lambda studies: None)

    def jobs(command: Command, arguments: Sequence[str]) -> None:
        if broken:
            raise UserError("of a job")

    def report(uri: str, sweeps: Sequence[str], storage: str) -> None:
        assert storage == arm.storage, "trials may wait beside it"
        raise StoreFailureError("of the report") if broken else UserError("of the report")

    monkeypatch.setattr(doorman, "_main", jobs)
    monkeypatch.setattr(api, "report", report)
    with pytest.raises(UserError, match="of a job" if broken else "of the report"):
        doorman._among_strangers(Command((), ()), [arm])


@pytest.mark.parametrize("asked", [[], ["--storage", "sqlite:///beside/optuna.db"]])
def test_a_report_delivers_what_waits_beside_the_storage_that_is_named(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def report(uri: str, sweeps: Sequence[str], out: Path, storage: str, pdf: bool) -> SimpleNamespace:
        heard.append(storage)
        return SimpleNamespace(summary="")

    monkeypatch.setattr(api, "report", report)
    assert run(["report", "s", *asked]) == 0
    assert heard == (asked[1:] or [Arm.storage])


def test_a_weight_decay_is_that_of_the_arms_that_decay() -> None:
    grid = [compose([*BASE, f"weight_decay={mode}", "weight_decay.value=0.1"]) for mode in ("none", "decoupled")]
    assert [arm.decay.value for arm in arms_from(grid, [])] == [0.0, 0.1]
