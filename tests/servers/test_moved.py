"""A sweep goes from files to servers and back: its report, its status and going on give the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from servers.conftest import Servers
from servers.watched import SWEEP, Kept, kept
from sweeping import run

FILES = ("sqlite:///mlruns/optuna.db", "sqlite:///mlruns/mlflow.db")


def _reported(folder: Path, storage: str, tracking_uri: str) -> Any:
    run(folder, "report", "files", "--storage", storage, "--tracking-uri", tracking_uri)
    text = (folder / "reports" / "files" / "results.json").read_text()
    found = json.loads(text)
    for sweep in found["sweeps"]:
        del sweep["run_id"], sweep["command"], sweep["experiment_id"]  # which are of a store
    for group in found["groups"]:
        for arm in group["arms"]:
            del arm["run_id"]
            for trial in (*arm["search"], *arm["confirm"]):
                del trial["run_id"]
    return {key: found[key] for key in ("sweeps", "groups", "verdicts")}


def test_there_and_back(servers: Servers, storage: str, on_files: Path, reference: Kept, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(on_files, folder)
    there = (storage, servers.mlflow.address)
    before = _reported(folder, *FILES)
    to = ["--to-storage", storage, "--to-tracking-uri", servers.mlflow.address]
    run(folder, "move", "files", *to)
    assert kept(*there, "files") == reference
    assert _reported(folder, *there) == before
    more = ["confirm.seeds=3", "hydra.launcher.workers=2"]
    said = run(folder, "-m", *SWEEP, "sweep.name=files", *more, *servers.keys(storage))
    assert "4 trials ended" in said, "it goes on where it is"
    grown = kept(*there, "files")
    assert {slot: grown.numbers[slot] for slot in reference.numbers} == reference.numbers
    back = ["--storage", storage, "--tracking-uri", servers.mlflow.address]
    run(folder, "move", "files", *back, "--to-storage", FILES[0], "--to-tracking-uri", FILES[1])
    local = (f"sqlite:///{folder}/mlruns/optuna.db", f"sqlite:///{folder}/mlruns/mlflow.db")
    assert kept(*local, "files") == grown
