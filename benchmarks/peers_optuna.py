"""Plain Optuna in two processes: `python -m benchmarks.peers_optuna TASK TRIALS`, stores in the working folder."""

from __future__ import annotations

import multiprocessing
import sys

import optuna
import torch
from benchmarks.peers_loop import EXPERIMENT, LR, TASKS, train
from mlflow import MlflowClient

STORAGE, TRACKING = "sqlite:///optuna.db", "sqlite:///mlflow.db"


def work(name: str, trials: int, experiment: str) -> None:
    """Train until there are so many trials."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task, client = TASKS[name][0](), MlflowClient(TRACKING)

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", *LR, log=True)
        return train(name, task, lr, trial.number, client, experiment)

    study = optuna.load_study(study_name=name, storage=STORAGE)
    study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials)])


if __name__ == "__main__":
    name, trials = sys.argv[1], int(sys.argv[2])
    optuna.create_study(study_name=name, storage=STORAGE)
    experiment = MlflowClient(TRACKING).create_experiment(EXPERIMENT)
    second = multiprocessing.get_context("spawn").Process(target=work, args=(name, trials, experiment))
    second.start()
    work(name, trials, experiment)
    second.join()
    sys.exit(second.exitcode)
