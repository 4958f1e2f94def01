"""What page, captions and terminal say where an arm was searched several times, diverged, or was not searched."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import hand_verdicts
from hand_figures import confirmed, made
from hand_figures import group as alone
from optsweep.cli.doorman import run
from optsweep.inference.repeats import SEEDS_PER_REPEAT
from optsweep.launch.display import Display
from optsweep.launch.events import ArmProgress, Planned, Progressed, Started, Trained, TrialEnded
from optsweep.launch.status import PhaseStatus, SweepStatus, short_names, status_table
from optsweep.report.comparison import Group, compare
from optsweep.report.figures import canvas, curves, outcome, ranks
from optsweep.report.figures.runs import runs
from optsweep.report.page import seeds_cell
from optsweep.report.verdict import verdict
from optsweep.search.slots import Slot
from optsweep.tracking import names
from optsweep.tracking.reader import ArmRecord, Curve, SweepRecord
from optsweep.tracking.schema import ConfirmTerms, Environment, SweepPlan, Timing
from optsweep.train.trial import Phase

FALLING = {names.VAL_LOSS: Curve(np.array([0, 50, 100]), np.array([2.0, 1.5, 1.0]))}
RISING = {names.VAL_LOSS: Curve(np.array([0, 10]), np.array([2.0, 1e17]))}


def repeated(optimizer: str, *losses: Sequence[float]) -> ArmRecord:
    """An arm with the confirm losses of each of its searches."""
    trials = [
        replace(t, seed=repeat * SEEDS_PER_REPEAT + t.seed)
        for repeat, own in enumerate(losses)
        for t in confirmed(*own, curves=FALLING)
    ]
    return made({"optimizer": optimizer}, trials, timing=Timing(1.0, 1.0, 1.0, 5))


def over(*arms: ArmRecord, repeats: int) -> Group:
    plan = SweepPlan(repeats=repeats, confirm=ConfirmTerms(seeds=2))
    (found,) = compare([SweepRecord("s", "0", None, plan, Environment(), "", (), arms)])
    return found


def test_captions_count_searches_and_the_seeds_of_each() -> None:
    arms = [repeated(o, (1.0, 1.1), (1.2, 1.3), (0.9, 1.0)) for o in ("adamw", "lion", "sgd", "soap")]
    group = over(*arms, repeats=3)
    said = {plan.name: plan.caption for plan in (*outcome.plans(group), *curves.plans(group), *ranks.plans(group))}
    assert "paired searches" in said["difference"]
    assert "single searches, each the mean of 2 seeds. n = 3 searches." in said["difference"]
    assert "over the means of 3 searches" in said["test_loss"]
    for name in ("test_loss", "val_loss", "val_loss_seconds"):
        assert "n = 3 searches × 2 seeds per arm." in said[name]
    assert "mean over the means of 3 searches" in said["val_loss"]
    assert "interval over searches by the bootstrap" in said["ranks"]
    assert "n = 3 searches, those" in said["ranks"]
    assert seeds_cell(group.arms[0]) == "3 × 2"


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([[0, 1, 2]], "3 seeds"),
        ([[0], [0, 1]], "1 to 2 seeds"),
        ([[0, 1, SEEDS_PER_REPEAT], [0]], "1 to 2 searches × 1 to 2 seeds"),
    ],
)
def test_runs_in_words(seeds: list[list[int]], said: str) -> None:
    assert runs(seeds) == said


def test_an_arm_that_only_diverged_does_not_make_the_loss_axis() -> None:
    held = [
        made({"optimizer": "sgd"}, confirmed(1.0, 1.1, curves=FALLING), timing=Timing(1.0, 1.0, 1.0, 5)),
        made({"optimizer": "lion"}, confirmed(np.inf, np.inf, curves=RISING), timing=Timing(1.0, 1.0, 1.0, 5)),
    ]
    for plan in curves.plans(alone(*held)):
        with canvas.style():
            (axes,) = plan.draw().axes
        assert axes.get_ylim()[1] < 3
        assert axes.get_yscale() == "linear"
        assert "Leaving the figure, diverged: task=t optimizer=lion schedule=constant." in plan.caption


def test_a_mean_that_is_of_no_seed_is_not_called_a_mean() -> None:
    v = verdict(alone(made({}, confirmed(1.0, 1.1)), made({"optimizer": "lion"}, confirmed(np.inf, np.inf))))
    assert not any("mean is over the others" in caveat for caveat in v.caveats)
    assert any("Diverged on every seed that ended" in caveat for caveat in v.caveats)


def test_the_page_has_a_column_for_repeats_only_where_there_are_some() -> None:
    once = hand_verdicts.page(verdict(over(repeated("adamw", (1.0, 1.1)), repeated("sgd", (1.2, 1.3)), repeats=1)))
    again = hand_verdicts.page(
        verdict(over(*(repeated(o, (1.0, 1.1), (1.2, 1.3)) for o in ("adamw", "sgd")), repeats=2))
    )
    assert ">Repeat</button>" in again
    assert ">Repeat</button>" not in once
    assert "Nothing was searched" in once
    assert "?workflowType=machine_learning" in once


def status(arm: str, phase: Phase, **counts: int) -> PhaseStatus:
    rest = {"done": 8, "running": 0, "waiting": 0, "diverged": 0, "pruned": 0, "crashed": 0}
    return PhaseStatus(arm, phase, best=2.5, **(rest | counts))


def test_a_status_fits_eighty_columns() -> None:
    arms = [
        f"task=charlm recipe={r} optimizer={o} schedule={s} warmup=linear weight_decay=decoupled"
        for r, o, s in (("adamw_cosine", "adamw", "cosine"), ("soap_schedulefree", "soap", "schedule_free"))
    ]
    found = [status(arm, phase, running=2, diverged=1, crashed=1) for arm in arms for phase in Phase]
    text = io.StringIO()
    Console(file=text, width=80).print(status_table("mine", found))
    lines = text.getvalue().splitlines()
    assert len(lines) <= 2 + len(found)
    assert max(map(len, lines)) <= 80
    assert "soap + schedule_free" in text.getvalue()
    assert "4 running, 2 diverged, 2 crashes" in " ".join(text.getvalue().split())


def test_short_names_tell_arms_apart() -> None:
    assert short_names(["task=a optimizer=sgd schedule=step x=1 2", "task=b optimizer=sgd schedule=step x=3"]) == [
        "a + sgd + step + x=1 2",
        "b + sgd + step + x=3",
    ]
    same = ["recipe=a optimizer=sgd schedule=step", "recipe=b optimizer=sgd schedule=step"]
    assert short_names(same) == same  # only the recipe tells them apart


def test_a_trial_that_ends_badly_is_named_with_its_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display(Started("mine", 1))
    display(Progressed([ArmProgress("sgd", total=4, crashed=2)]))
    display(TrialEnded("sgd", Phase.SEARCH, Slot(2, {"lr": 0.63245553}, 2 * SEEDS_PER_REPEAT + 2, "", value=np.inf)))
    display(Trained())
    said = capsys.readouterr().out
    assert "sgd: repeat 2, search 2 (lr=0.632) diverged" in said
    assert "2 crashed without a result" in said


def test_brackets_of_a_name_are_letters(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = PhaseStatus("optimizer=mine[bold] schedule=cosine", Phase.SEARCH, 1, 0, 0, 0, 0, 0, 0.5)
    monkeypatch.setattr("optsweep.api.status", lambda storage, sweep: SweepStatus((row,), None, 0.0, (), None))
    assert run(["status", "a[red] :x:"]) == 0
    said = capsys.readouterr().out
    assert "mine[bold] + cosine" in said
    assert "sweep a[red] :x:" in said


def test_what_is_left_counts_the_time_between_trials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr("optsweep.launch.display.time", clock)
    display = Display()
    display(Started("mine", 1))
    # The first trial is done after 20 s of imports, each further one 5 s later, of which it trains for half a second.
    for seconds, done in ((0, 0), (20, 1), (40, 5)):
        clock.monotonic = lambda now=seconds: now
        display(Progressed([ArmProgress("sgd", total=11, done=done, mean_seconds=0.5)]))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "sweep mine: 1 arm, 11 trials, 0 done, 1 worker"
    assert said[-1].startswith("5/11 trials in 40 s, about 30 s left")


def test_a_sweep_says_what_it_will_cost_and_against_what(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display(Planned("adamw", (60, 90), {"adamw": 2.0, "sgd": 1.0}, "as 8 such trials took before"))
    display(Started("mine", 2))
    display(Progressed([ArmProgress("adamw", total=11, done=1), ArmProgress("sgd", total=10, done=10)]))
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "held against adamw; 10 trials of 60 to 90 steps are left, about 10 s of training by 2 workers "
        "(as 8 such trials took before)"
    )
    assert second.startswith("sweep mine: 2 arms, 21 trials")


def test_a_cost_that_nobody_knows_is_not_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display(Planned("", (60, 60), {}, "by steps that were timed now"))
    display(Started("mine", 1))
    display(Progressed([ArmProgress("adamw", total=1)]))
    assert capsys.readouterr().out.startswith("1 trial of 60 steps is left; how long that takes shows with the first")
