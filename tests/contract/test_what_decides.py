"""Where a metric of the user's decides, nothing that is said of it calls it the loss."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from matplotlib.text import Text

import hand_sweeps
from hand_figures import MANY, VALLEY, confirmed, group, made, modes, rates, searched, warmups
from hand_sweeps import HALVING, by_length, seeds, sweep
from optsweep.launch.live.page import drawn_of
from optsweep.launch.live.report import LiveFinding
from optsweep.report.across.findings import across
from optsweep.report.comparison import Group, compare
from optsweep.report.figures.canvas import FigurePlan, style
from optsweep.report.page import render
from optsweep.report.verdict import verdict
from optsweep.report.write import across_plans, named_plans
from optsweep.tracking.reader import ArmRecord
from optsweep.tracking.schema import RangeRecord

DECIDES = "1 − auc"
OF_THE_LOSS = {"val_aside", "train_loss"}  # figures that are of it indeed
LOSS = re.compile(r"\bloss(es)?\b", re.IGNORECASE)
LR, DECAY = RangeRecord(1e-4, 1.0, True, "deck"), RangeRecord(0.0, 1.0, False, "deck")


def by_metric(*arms: ArmRecord) -> list[ArmRecord]:
    return [replace(one, facts={**one.facts, "decides": DECIDES}) for one in arms]


def texts(plan: FigurePlan) -> list[str]:
    """All that a figure says, on it and beside it."""
    with style():
        drawn = [found.get_text() for found in plan.draw().findobj(Text) if isinstance(found, Text)]
    touched = [] if plan.touch is None else [plan.touch.y_label]
    return [plan.title, plan.caption, plan.alt, *touched, *drawn]


def says_metric(plans: Sequence[FigurePlan]) -> None:
    for plan in plans:
        said = texts(plan)
        assert plan.name in OF_THE_LOSS or not [text for text in said if LOSS.search(text)], plan.name


def planned(of: Group) -> dict[str, FigurePlan]:
    return named_plans([of], across([of]))


def tuned(optimizer: str, shift: float) -> ArmRecord:
    decays = [(slot * 7 % 60) / 60 for slot in range(60)]
    trials = [*searched(MANY, weight_decay=decays), *confirmed(1.0 + shift, 1.1, 1.2 + shift)]
    return made({"optimizer": optimizer}, trials, space={"lr": LR, "weight_decay": DECAY})


def test_the_figure_of_differences_names_what_decides() -> None:
    arms = by_metric(made({"optimizer": "a"}, confirmed(1.0, 1.1)), made({"optimizer": "b"}, confirmed(0.9, 1.2)))
    plan = planned(group(*arms))["difference"]
    assert plan.title == "Difference of test 1 − auc from the baseline"
    assert any(text.startswith("test 1 − auc relative to") for text in texts(plan))


@pytest.mark.parametrize(
    ("arms", "names"),
    [
        ([tuned("a", 0.0), tuned("b", 0.1), tuned("c", 0.2), tuned("d", 0.3)], "lr_sensitivity lr_decay tuning ranks"),
        ([tuned("a", 0.0), tuned("b", 0.1)], "test_loss difference importance"),
        (rates("sgd", [1.0, 1.1], [0.9, 0.8], [2.0, 2.1]), "lr_response"),
        (warmups(), "heat_warmup_steps"),
        (modes("none", "l2", "decoupled"), "decay_modes"),
    ],
)
def test_no_figure_of_a_group_calls_it_the_loss(arms: list[ArmRecord], names: str) -> None:
    plans = planned(group(*by_metric(*arms)))
    assert set(names.split()) <= plans.keys()
    says_metric(list(plans.values()))


def test_nor_does_the_page_or_what_is_said_over_groups() -> None:
    lengths = [*by_length("adamw", HALVING), *by_length("soap", {n: loss - 0.5 for n, loss in HALVING.items()})]
    tasks = [hand_sweeps.arm(name, seeds(2.0), task=task) for task in ("a", "b") for name in ("adamw", "soap")]
    crossed = [
        replace(one, name=f"{one.name},{schedule}", label=f"{optimizer} + {schedule}")
        for optimizer in ("adamw", "soap")
        for schedule in ("cosine", "schedule_free")
        for one in [hand_sweeps.arm(optimizer, seeds(2.0), schedule=schedule)]
    ]
    for arms, heading in ((lengths, "Across run lengths"), (tasks, "Across tasks"), (crossed, "Two choices crossed")):
        record = sweep(*by_metric(*arms))
        groups = compare([record])
        found = across(groups)
        plans = across_plans(found)
        says_metric([plan for held in plans for plan in held])
        page = render(
            [record],
            [verdict(of) for of in groups],
            [[] for _ in groups],
            found,
            [[] for _ in plans],
            "",
            "sqlite:///s.db",
        )
        body = page[page.index("<main") :]
        said = html.unescape(re.sub(r"<script.*?</script>|<[^>]+>", "\n", body, flags=re.DOTALL))
        titles = html.unescape("\n".join(re.findall(r'(?:data-th|title|aria-label)="([^"]*)"', body)))
        assert heading in said
        left = [
            line for line in f"{said}\n{titles}".splitlines() if LOSS.search(line) and "parts of the test" not in line
        ]
        assert left == []


def test_by_the_loss_all_is_called_as_it_was() -> None:
    plans = planned(group(made({"optimizer": "a"}, searched(VALLEY) + confirmed(1.0, 1.1), space={"lr": LR})))
    assert plans["test_loss"].title == "Test loss, seed by seed"
    assert plans["lr_sensitivity"].alt.startswith("Validation loss against learning rate")


def test_curves_of_trials_in_training_name_it_too() -> None:
    arms = [made({"optimizer": name}, confirmed(1.0, 1.1)) for name in "ab"]
    by_loss, own = group(*arms), group(*by_metric(*arms))
    assert drawn_of(LiveFinding(by_loss.sweep, []))["now_val"] == "validation loss"
    assert drawn_of(LiveFinding(by_loss.sweep, [by_loss]))["now_val"] == "validation loss"
    assert drawn_of(LiveFinding(own.sweep, [own])) == {"now_val": f"validation {DECIDES}", "now_train": "training loss"}
