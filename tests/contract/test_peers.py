"""What optsweep is held against: a loop by hand that learns and logs as much; what is computed of Ray Tune's trials."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks import peers
from benchmarks.peers_loop import POINTS, RUNGS, TASKS, train


class Client:
    """Stands in for MLflow's, and keeps what it is told."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []
        self.ended: list[str] = []

    def create_run(self, experiment: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def log_batch(self, run: str, metrics: list[Any], params: list[Any]) -> None:
        self.metrics += metrics

    def set_terminated(self, run: str) -> None:
        self.ended.append(run)


def test_the_loop_by_hand_learns_and_logs_as_many_points() -> None:
    client, task = Client(), TASKS["iris_mlp"][0]()
    value = train("iris_mlp", task, 1e-3, 0, client, "e")  # type: ignore[arg-type]
    assert value < 0.5 * task.chance_loss  # type: ignore[operator]
    assert Counter(m.key for m in client.metrics) == {"lr": POINTS, "train_loss": POINTS, "val_loss": RUNGS}
    steps = TASKS["iris_mlp"][1]
    lrs = {m.step: m.value for m in client.metrics if m.key == "lr"}
    assert max(lrs.values()) == pytest.approx(1e-3, rel=0.02)
    assert lrs[steps] == pytest.approx(0.0, abs=1e-12)
    assert client.ended == ["r"]


@pytest.mark.parametrize("name", TASKS)
def test_the_tasks_are_those_of_the_config(name: str) -> None:
    from optsweep.build.named_task import build_task
    from optsweep.config.compose import compose
    from optsweep.config.door import arm_of

    arm = arm_of(compose([f"task={name}", "sweep.name=peers"]))
    given, steps, batch_size = TASKS[name]
    assert (steps, batch_size) == (arm.task.steps, arm.task.batch_size)
    assert given().digest() == build_task(arm.task).digest()
    assert str(given().model()) == str(build_task(arm.task).model())  # type: ignore[attr-defined]


def test_of_a_few_of_ray_s_trials_all_are_computed_and_its_start_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_timed", lambda *_: peers.Command(20.0, 4, 112.0, "status\n12.0\n"))
    seconds, said = peers._ray(peers.Search("digits_mlp", 400, 3.0), 4)
    assert seconds == 8.0 + 400 * 3.0
    assert "8.0 s and 3.00 s a trial, of which 4 were run" in said
