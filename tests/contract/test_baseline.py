"""`sweep.baseline`: the arm that is called so, not one whose name happens to have the word within."""

from __future__ import annotations

import pytest

from optsweep.errors import UserError
from optsweep.launch.prepare.labels import NamedArm, meant


def arm(label: str, **choices: str) -> NamedArm:
    held = {key.replace("__", "."): value for key, value in choices.items()}
    return NamedArm(" ".join(f"{key}={value}" for key, value in held.items()), label, held)


RESTARTS = arm("adamw + cosine_restarts", task="x", optimizer="adamw", schedule="cosine_restarts")
COSINE = arm("adamw + cosine", task="x", optimizer="adamw", schedule="cosine")
ADAM = arm("adam + linear", task="x", optimizer="adam", schedule="linear")
EMA = arm("adamw + cosine + ema", task="x", optimizer="adamw", schedule="cosine", averaging="ema")
SHORT = arm("steps=100", task="x", optimizer="sgd", trainer__steps="100")
LONG = arm("steps=1000", task="x", optimizer="sgd", trainer__steps="1000")


@pytest.mark.parametrize(
    ("wanted", "arms", "found"),
    [
        ("cosine", [RESTARTS, COSINE], COSINE),
        ("optimizer=adam", [COSINE, ADAM], ADAM),
        ("schedule=cosine optimizer=adamw", [RESTARTS, COSINE], COSINE),
        ("steps=100", [LONG, SHORT], SHORT),
        ("trainer.steps=100", [LONG, SHORT], SHORT),
        ("adamw + cosine", [EMA, COSINE], COSINE),
        (COSINE.name, [EMA, COSINE], COSINE),
        ("averaging=none schedule=cosine", [EMA, COSINE], COSINE),
        ("restarts", [COSINE, RESTARTS], RESTARTS),
        ("nobody", [COSINE, RESTARTS], None),
    ],
)
def test_the_most_exact_reading_counts(wanted: str, arms: list[NamedArm], found: NamedArm | None) -> None:
    assert meant(arms, wanted) == (found.name if found else None)


@pytest.mark.parametrize("wanted", ["cosine", "schedule=cosine", "optimizer=adamw"])
def test_what_may_be_several_is_refused_with_all_of_them(wanted: str) -> None:
    with pytest.raises(UserError) as error:
        meant([COSINE, EMA], wanted)
    line = f"sweep.baseline: {wanted!r} may be any of adamw + cosine; adamw + cosine + ema; give one of these"
    assert str(error.value).startswith(line)


def test_every_task_and_every_length_may_have_one() -> None:
    arms = [
        arm(f"{task} {optimizer} {steps}", task=task, optimizer=optimizer, trainer__steps=steps)
        for task in ("x", "y")
        for steps in ("100", "200")
        for optimizer in ("adamw", "adam")
    ]
    assert meant(arms, "optimizer=adam") == arms[1].name
    with pytest.raises(UserError, match="may be any of"):
        meant(arms, "task=x")
