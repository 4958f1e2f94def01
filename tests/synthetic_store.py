"""Fills an MLflow store with a made-up sweep through MLflow's own client, as tracking_names.py lays it down.

    python tests/integration/synthetic_store.py sqlite:////tmp/store/mlflow.db demo --trials 1000

Tests look at reports of it, benchmarks time them. Nothing is trained: losses come from a formula and a seed.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.train.trial import Phase

CLOCK = 1_700_000_000_000  # every timestamp of the store, so that two fillings are alike


@dataclass(frozen=True)
class FakeArm:
    """An arm whose loss is known: `final` at its best LR, worse by `curvature` per squared decade from it."""

    name: str
    label: str
    choices: Mapping[str, str]
    final: float = 2.0
    best_lr: float = 3e-3
    curvature: float = 0.3
    noise: float = 0.01
    diverges_above: float = math.inf
    suggested: tuple[float, float] = (1e-4, 1e-2)
    searched: tuple[float, float] | None = None  # after extension
    decay: tuple[float, float] | None = (1e-3, 1.0)
    bracketed: tuple[bool, bool] = (True, True)
    ms_per_step: float | None = 2.0
    state_bytes: int = 2_000_000
    decays_late: bool = True
    confirm_status: Sequence[Status] = ()  # by seed index; finished where it ends
    confirm_seeds: int | None = None  # fewer than planned: the sweep is still running
    chosen: bool = True
    warnings: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def arm(task: str, optimizer: str, schedule: str, **known: Any) -> FakeArm:
    """A fake arm whose names follow from its choices."""
    choices = {
        "task": task,
        "optimizer": optimizer,
        "schedule": schedule,
        "warmup": "linear",
        "weight_decay": "decoupled",
    }
    choices.update(known.pop("choices", {}))
    extra = "".join(f",{key}={value}" for key, value in choices.items() if key.startswith("trainer."))
    name = f"{task},{optimizer},{schedule}{extra}"
    return FakeArm(name=known.pop("name", name), label=f"{optimizer} + {schedule}", choices=choices, **known)


DEFAULT = (
    arm("charlm", "adamw", "cosine", final=2.05, best_lr=2e-2, searched=(1e-4, 9e-2), diverges_above=8e-2),
    arm(
        "charlm",
        "soap",
        "schedule_free",
        final=1.93,
        best_lr=3e-2,
        suggested=(1e-4, 2e-3),
        searched=(1e-4, 5e-2),
        diverges_above=4.5e-2,
        bracketed=(True, False),
        ms_per_step=3.1,
        state_bytes=4_200_000,
        decays_late=False,
        warnings=("SOAP's learning rate has no range in the deck; the range is EPFL's.",),
    ),
)


def fill(
    tracking_uri: str,
    sweep: str,
    arms: Sequence[FakeArm] = DEFAULT,
    *,
    trials: int = 16,
    seeds: int = 8,
    rungs: int = 12,
    num_steps: int = 400,
    prune_every: int = 5,
    baseline: str | None = None,
    absent: Sequence[str] = (),
    artifacts: Path | None = None,
) -> str:
    """Write the sweep: `trials` search trials and `seeds` confirm trials per arm. Returns the experiment's id."""
    client = MlflowClient(tracking_uri)
    experiment = client.create_experiment(sweep, artifact_location=artifacts.as_uri() if artifacts else None)
    plan = {
        "arms": [*(a.name for a in arms), *absent],
        "baseline": baseline or arms[0].name,
        "seed": 0,
        "objective": names.VAL_LOSS,
        "search": {"trials": trials, "reruns": 2, "lag": 4, "sampler": "tpe", "pruner": "median"},
        "confirm": {"seeds": seeds},
    }
    _create(
        client,
        experiment,
        f"sweep {sweep}",
        {
            names.KIND: "sweep",
            names.PLAN: json.dumps(plan),
            names.ENVIRONMENT: json.dumps(ENVIRONMENT),
            names.COMMAND: f"optsweep -cn soap_schedulefree_vs_adamw_cosine -m 'sweep.name={sweep}'",
            names.SESSIONS: json.dumps(
                [{"start": 1.7e9, "end": 1.7e9 + 402.5, "workers": 2, "train_seconds": 705.0, "trials": 48}]
            ),
        },
    )
    for number, a in enumerate(arms):
        _fill_arm(
            client, experiment, a, np.random.default_rng([7, number]), trials, seeds, rungs, num_steps, prune_every
        )
    return experiment


ENVIRONMENT = {
    "python": "3.11.9",
    "platform": "Linux-6.1-x86_64",
    "processor": "A processor of 2 cores",
    "cores": 2,
    "memory_bytes": 8 * 2**30,
    "device": "cpu",
    "packages": {"torch": "2.13.0", "mlflow": "3.17.2", "optuna": "5.0.0", "hydra-core": "1.3.8"},
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
}


def _fill_arm(
    client: MlflowClient,
    experiment: str,
    a: FakeArm,
    rng: np.random.Generator,
    trials: int,
    seeds: int,
    rungs: int,
    num_steps: int,
    prune_every: int,
) -> None:
    low, high = a.searched or a.suggested
    space: dict[str, Any] = {
        "lr": {"low": a.suggested[0], "high": a.suggested[1], "log": True, "source": "EPFL, arXiv 2509.01440"}
    }
    fixed: dict[str, float] = {"warmup_steps": 40}
    chosen = {"lr": float(np.clip(a.best_lr, low, high))}
    if a.decay:
        space["weight_decay"] = {"low": a.decay[0], "high": a.decay[1], "log": True, "source": "ranges.md, AlgoPerf"}
        chosen["weight_decay"] = math.sqrt(a.decay[0] * a.decay[1])
    steps = int(a.choices.get("trainer.steps", num_steps))
    tags = {
        names.KIND: "arm",
        names.ARM: a.name,
        names.LABEL: a.label,
        names.CHOICES: json.dumps(dict(a.choices)),
        names.FINGERPRINT: f"{zlib.crc32(a.name.encode()):08x}",
        names.SPACE: json.dumps(space),
        names.FIXED: json.dumps(fixed),
        names.FACTS: json.dumps(
            {
                "num_parameters": 123_456,
                "num_steps": steps,
                "batch_size": 32,
                "metric": "accuracy",
                "loss_unit": "nats",
                **a.facts,
            }
        ),
        names.WARNINGS: json.dumps(list(a.warnings)),
    }
    if a.chosen:
        tags[names.CHOSEN] = json.dumps(
            {
                "params": chosen,
                "mean": a.final,
                "n": 2,
                "bracketed": {"lr": dict(zip(("low", "high"), a.bracketed, strict=True))},
                "searched": {"lr": [low, high]},
                "slots": [max(trials - 2, 0), max(trials - 1, 0)],
            }
        )
    if a.ms_per_step:
        ms = a.ms_per_step
        tags[names.TIMING] = json.dumps({"ms_per_step": ms, "low": 0.97 * ms, "high": 1.05 * ms, "n": 50})
    parent = _create(client, experiment, a.name, tags)
    log_low, log_high = np.log10([low, high])
    for slot in range(trials):
        last = slot >= trials - 2
        params = dict(chosen) if last else {"lr": float(10 ** rng.uniform(log_low, log_high))}
        if a.decay and not last:
            params["weight_decay"] = float(10 ** rng.uniform(*np.log10(a.decay)))
        status = Status.FINISHED
        if params["lr"] > a.diverges_above:
            status = Status.DIVERGED
        elif prune_every and slot % prune_every == prune_every - 1 and not last:
            status = Status.PRUNED
        origin = "rerun" if last else "quasi-random" if slot < trials // 2 else "bracket" if slot % 3 == 0 else "model"
        _fill_trial(client, experiment, parent, a, Phase.SEARCH, slot, 0, params, status, origin, rng, rungs, steps)
    for seed in range(seeds if a.confirm_seeds is None else a.confirm_seeds):
        status = a.confirm_status[seed] if seed < len(a.confirm_status) else Status.FINISHED
        _fill_trial(
            client, experiment, parent, a, Phase.CONFIRM, seed, seed, chosen, status, "chosen", rng, rungs, steps
        )


def _fill_trial(
    client: MlflowClient,
    experiment: str,
    parent: str,
    a: FakeArm,
    phase: Phase,
    slot: int,
    seed: int,
    params: Mapping[str, float],
    status: Status,
    origin: str,
    rng: np.random.Generator,
    rungs: int,
    num_steps: int,
) -> None:
    tags = {
        names.KIND: "trial",
        names.ARM: a.name,
        names.PHASE: phase.value,
        names.SLOT: str(slot),
        names.SEED: str(seed),
        names.ORIGIN: origin,
        names.STATUS: status.value,
        names.STATE_BYTES: str(a.state_bytes),
        names.TRAIN_SECONDS: f"{num_steps * 0.0021:.3f}",
        names.LANES: "1",
        "mlflow.parentRunId": parent,
    }
    if status is Status.DIVERGED:
        tags[names.ERROR] = f"training loss was not finite at step {num_steps // 3}"
    if status is Status.CRASHED:
        tags[names.ERROR] = "OutOfMemoryError: tried to allocate <2 GiB>"
    run_id = _create(client, experiment, f"{a.label} {phase.value} {slot}", tags)
    # seeds are shared by all arms, so part of the noise is too: what pairing is for
    shared = float(np.random.default_rng([3, seed]).normal()) * 3 * a.noise if phase is Phase.CONFIRM else 0.0
    metrics = _curves(a, params, status, shared + float(rng.normal()) * a.noise, rungs, num_steps)
    if phase is Phase.CONFIRM and status is Status.FINISHED:
        final = metrics[names.VAL_LOSS][-1][1]
        metrics[names.TEST_LOSS] = [(num_steps, final + 0.02 + float(rng.normal()) * a.noise / 2)]
        metrics[names.test_metric("accuracy")] = [(num_steps, 0.9 - final / 10)]
    points = [Metric(key, value, CLOCK, step) for key, rows in metrics.items() for step, value in rows]
    logged = [Param("seed", str(seed)), *(Param(key, repr(value)) for key, value in params.items())]
    for start in range(0, max(len(points), 1), 1_000):
        client.log_batch(run_id, points[start : start + 1_000], logged if start == 0 else (), synchronous=True)
    if status is not Status.RUNNING:
        client.set_terminated(run_id, "FAILED" if status is Status.CRASHED else "FINISHED", end_time=CLOCK)


def _curves(
    a: FakeArm, params: Mapping[str, float], status: Status, noise: float, rungs: int, num_steps: int
) -> dict[str, list[tuple[int, float]]]:
    away = math.log10(params["lr"] / a.best_lr)
    final = a.final + a.curvature * away**2 + noise
    if "weight_decay" in params:
        final += 0.02 * (math.log10(params["weight_decay"]) + 1.5) ** 2
    done = {Status.DIVERGED: 0.34, Status.PRUNED: 0.5, Status.CRASHED: 0.2, Status.RUNNING: 0.4}.get(status, 1.0)
    found: dict[str, list[tuple[int, float]]] = {names.VAL_LOSS: [], names.TRAIN_LOSS: [], names.LR: []}
    for share in np.linspace(0, 1, rungs + 1)[1:]:
        if share > done + 1e-9:
            break
        step = round(share * num_steps)
        power = 0.55 if a.decays_late else 0.25
        loss = final + 2.2 * (1 - share**power) + 0.01 * math.sin(20 * share + noise * 400)
        multiplier = 0.5 * (1 + math.cos(math.pi * share)) if a.decays_late else 1.0
        found[names.VAL_LOSS].append((step, loss))
        found[names.TRAIN_LOSS].append((step, loss - 0.05 * share + 0.02 * math.sin(37 * share)))
        found[names.LR].append((step, params["lr"] * multiplier))
    if status is Status.DIVERGED:
        found[names.VAL_LOSS].append((num_steps // 3, math.nan))
    found[names.MS_PER_STEP] = [(num_steps, 2.1)]
    found[names.PEAK_BYTES] = [(num_steps, 3e8)]
    return {key: rows for key, rows in found.items() if rows}


def _create(client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str]) -> str:
    run = client.create_run(experiment, start_time=CLOCK, tags=dict(tags), run_name=name)
    return str(run.info.run_id)


def main() -> None:
    """Fill a store from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("sweep")
    parser.add_argument("--trials", type=int, default=16, help="search trials, all arms together")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    artifacts = Path(options.uri.removeprefix("sqlite:///")).absolute().parent / "artifacts"
    fill(options.uri, options.sweep, trials=options.trials // len(DEFAULT), seeds=options.seeds, artifacts=artifacts)


if __name__ == "__main__":
    main()
