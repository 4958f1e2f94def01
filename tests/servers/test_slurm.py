"""The same sweep as SLURM jobs: the numbers of one process, whatever is requeued; how its command ends meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import optsweep
from optsweep.cli import doorman
from optsweep.launch.slurm.record import SlurmJob, outcome_of
from optsweep.search.studies import Studies
from servers.conftest import Servers
from servers.slurm_parts import SUBMITTED, Slurm, jobs_of, missing_slurm, said_by, slurm
from servers.watched import LONG, SWEEP, Kept, kept, num_done, wait_for

LAUNCHER = ["hydra/launcher=slurm", "hydra.launcher.partition=one"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    if lacking := missing_slurm():
        pytest.skip(f"not installed: {', '.join(lacking)}")
    with slurm() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(started.conf))
        yield started


def _until_over(folder: Path, sweep: str) -> None:
    wait_for(lambda: outcome_of(folder / "mlruns" / "slurm" / sweep, jobs_of(folder, sweep).planner) is not None)


def _num_helping(storage: str, sweep: str) -> int:
    return sum(sign.helpers > 0 for sign in Studies.open(storage, sweep).signs_of_life(60.0))


def test_the_same_numbers_whatever_is_requeued(
    cluster: Slurm, servers: Servers, storage: str, long_reference: Kept, tmp_path: Path
) -> None:
    many = ["hydra/launcher=slurm", "hydra.launcher.workers=2", "hydra.launcher.report=true"]
    command = ["-m", *LONG, "sweep.name=jobs", *servers.keys(storage), *many]
    assert "2 workers" in said_by(tmp_path, SUBMITTED, *command)
    before = jobs_of(tmp_path, "jobs")
    wait_for(lambda: num_done(storage, "jobs") >= 1)
    with servers.held_back(storage):
        wait_for(lambda: _num_helping(storage, "jobs") == 2)
    cluster.said("scontrol", "requeue", before.planner.id)
    for worker in before.workers:  # as before their time limit
        cluster.said("scancel", "--signal=USR2", worker.id)
    again = said_by(tmp_path, SUBMITTED, *command)
    assert jobs_of(tmp_path, "jobs") == before, "nothing is submitted twice"
    assert f"planner: job {before.planner.id}" in again
    _until_over(tmp_path, "jobs")
    for job in (before.planner, *before.workers):
        assert "Restarts=1" in cluster.said("scontrol", "show", "job", job.id)
    assert kept(storage, servers.mlflow.address, "jobs") == long_reference
    again = said_by(tmp_path, 0, *command)
    assert "nothing was left to do; the report is reports/jobs/index.html" in again
    assert optsweep.load(tmp_path / "reports" / "jobs" / "results.json").verdict in again
    assert (tmp_path / "reports" / "jobs" / "index.html").is_file()
    scripts = [*(tmp_path / "mlruns" / "slurm" / "jobs").glob("*.sh"), *tmp_path.rglob("*_log.out")]
    assert len(scripts) > 4
    assert not any("s3cret" in script.read_text() for script in scripts)


def test_a_command_that_waits_ends_as_the_sweep_does(cluster: Slurm, reference: Kept, tmp_path: Path) -> None:
    waiting = ["hydra.launcher.workers=1", "hydra.launcher.wait=true"]
    said = said_by(tmp_path, 0, "-m", *SWEEP, "sweep.name=files", *LAUNCHER, *waiting)
    assert "of 32 trials done" in said
    assert "can't be read" not in said
    assert said.splitlines()[-1] == "0 trials ended; no report was asked for"
    local = (f"sqlite:///{tmp_path}/mlruns/optuna.db", f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    assert kept(*local, "files") == reference


def test_what_is_gone_is_submitted_again(cluster: Slurm, tmp_path: Path) -> None:
    """Of jobs that don't begin, so that none of them can end by itself."""
    held = ["hydra.launcher.workers=1", "hydra.launcher.sbatch={hold: true}"]
    command = ["-m", *SWEEP, "sweep.name=lost", *LAUNCHER, *held]

    def cancel(job: SlurmJob) -> None:
        cluster.said("scancel", job.id)
        wait_for(lambda: cluster.is_over(job.id))

    said_by(tmp_path, SUBMITTED, *command)
    before = jobs_of(tmp_path, "lost")
    cancel(before.workers[0])
    assert "1 worker submitted" in said_by(tmp_path, SUBMITTED, *command)
    after = jobs_of(tmp_path, "lost")
    assert after.planner == before.planner
    assert len(after.workers) == 1
    assert after.workers != before.workers
    cancel(before.planner)
    assert "submitted to SLURM" in said_by(tmp_path, SUBMITTED, *command)
    last = jobs_of(tmp_path, "lost")
    assert last.planner.id != before.planner.id
    assert last.workers == after.workers, "which belong to the new one"
    for job in (last.planner, *last.workers):
        cancel(job)


def test_code_that_fails_is_told_by_the_command(cluster: Slurm, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def task():\n    raise RuntimeError('no such data')\n")
    own = ["optimizer=adamw", "schedule=cosine", "task=own", "task._target_=broken.task", "sweep.name=broken"]
    command = [*own, *LAUNCHER, "hydra.launcher.workers=1"]
    said_by(tmp_path, SUBMITTED, *command)
    _until_over(tmp_path, "broken")
    wait_for(cluster.is_over)  # its worker too
    line = said_by(tmp_path, 2, *command)
    assert line.startswith("optsweep: task: broken.py:2, in task: RuntimeError: no such data (")
    assert "Traceback" not in line
    assert not (tmp_path / "mlruns" / "optuna.db").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["hydra.launcher.partition=nowhere"], "invalid partition specified: nowhere"),
        (["hydra.launcher.cpus_per_worker=64"], "Requested node configuration is not available"),
        (["hydra.launcher.gpus_per_worker=1"], "Invalid generic resource"),
        (["hydra.launcher.mem=90T"], "Requested node configuration is not available"),
        (["hydra.launcher.sbatch={nonsense: 1}"], "unrecognized option"),
        (["hydra.launcher.time=soon"], "hydra.launcher.time: 'soon' is not allowed"),
        (["hydra.launcher.workers=2"], "tracking.storage=postgresql+psycopg://"),
        (["tracking.storage=postgresql+psycopg://a:hunter2@127.0.0.1:9/studies"], "Connection refused"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    wrong: list[str], said: str, cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doorman.run(["-m", *SWEEP, "sweep.name=wrong", "hydra/launcher=slurm", *wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "hunter2" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_controller_that_is_away_is_one_line(
    cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    cluster.stop_controller()
    try:
        assert doorman.run(["-m", *SWEEP, "sweep.name=away", *LAUNCHER]) == 2
    finally:
        cluster.start_controller()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("optsweep: hydra/launcher=slurm: SLURM's controller doesn't answer")
    assert list(tmp_path.iterdir()) == []
