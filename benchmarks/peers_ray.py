"""Ray Tune on two cores: `python -m benchmarks.peers_ray TASK TRIALS`, stores in the working folder.

Prints the seconds that its trials took, without the start of Ray.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
import torch
from benchmarks.peers_loop import EXPERIMENT, LR, TASKS, train
from mlflow import MlflowClient
from ray import tune

ROOT = Path(__file__).resolve().parents[1]


def main(name: str, trials: int) -> float:
    """Seconds of so many trials, two at a time."""
    folder = Path.cwd()
    tracking = f"sqlite:///{folder}/mlflow.db"
    experiment = MlflowClient(tracking).create_experiment(EXPERIMENT)

    def trial(setting: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        value = train(name, TASKS[name][0](), setting["lr"], setting["seed"], MlflowClient(tracking), experiment)
        tune.report({"val_loss": value})

    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    begin = time.perf_counter()
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"lr": tune.loguniform(*LR), "seed": tune.randint(0, 2**31)},
        tune_config=tune.TuneConfig(metric="val_loss", mode="min", num_samples=trials),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    found = tuner.fit()
    seconds = time.perf_counter() - begin
    if found.num_errors:
        raise SystemExit(f"{found.num_errors} trials failed: {found.errors[0]}")
    ray.shutdown()
    return seconds


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2])))
