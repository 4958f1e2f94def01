"""Suggestions against values computed by hand from the deck's tables and the other sources."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from benchmarks.lr_grid import MEASURED, optimum

from optsweep.build.measured import MEASURED_LR
from optsweep.build.suggestions import (
    ADAPTIVE,
    LR_RANGES,
    TaskFacts,
    gamma,
    lr_range,
    step_size,
    suggest_all,
    warmup_fraction,
    weight_decay,
)

TRANSFORMER = TaskFacts(num_samples=100_000, batch_size=32, num_steps=1000, architecture="transformer")
CNN = TaskFacts(num_samples=60_000, batch_size=60, num_steps=50_000, architecture="cnn")  # 50 epochs

OPTIMIZERS = (
    *("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "adamw"),
    *("lion", "lamb", "soap", "muon"),
)


@pytest.mark.parametrize(
    ("optimizer", "low", "high"),
    [
        ("sgd", 0.1, 1.0),
        ("momentum", 0.01, 0.1),
        ("nesterov", 0.01, 0.1),
        ("adam", 1e-4, 1e-3),
        ("adamw", 1e-4, 1e-3),
        ("rmsprop", 1e-4, 1e-3),
        ("adagrad", 0.01, 0.1),
        ("lion", 1e-4, 3e-4),
        ("adadelta", 0.1, 10.0),
        ("lamb", 1e-4, 1e-2),
    ],
)
def test_lr_range_as_published(optimizer: str, low: float, high: float) -> None:
    suggestion = lr_range(optimizer, "cosine", CNN)
    assert suggestion is not None
    assert (suggestion.low, suggestion.high) == (low, high)
    assert suggestion.value == pytest.approx((low * high) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "factor", "words"),
    [
        ({"batch_size": 64, "reference_batch_size": 32}, 2**0.5, "√2"),
        ({"batch_size": 128, "reference_batch_size": 32}, 2.0, "√4"),
        ({"batch_size": 8, "reference_batch_size": 32}, 0.5, "√0.25"),
        ({"deep": True}, 0.5, "deep"),
        ({"fine_tuning": True}, 0.1, "fine-tuning"),
        ({"unstable": True}, 0.1, "unstable"),
        ({"deep": True, "fine_tuning": True, "unstable": True}, 0.005, "fine-tuning"),
    ],
)
def test_lr_adjustments(changes: dict[str, object], factor: float, words: str) -> None:
    suggestion = lr_range("adamw", "cosine", replace(TRANSFORMER, **changes))  # type: ignore[arg-type]
    assert suggestion is not None
    assert suggestion.low == pytest.approx(1e-4 * factor)
    assert suggestion.high == pytest.approx(1e-3 * factor)
    assert words in suggestion.arithmetic


def test_dampened_momentum_has_a_larger_lr() -> None:
    suggestion = lr_range("momentum", "constant", CNN, dampening=0.9)
    assert suggestion is not None
    assert (suggestion.low, suggestion.high) == pytest.approx((0.1, 1.0))
    assert "× 10 (dampening 0.9)" in suggestion.arithmetic


@pytest.mark.parametrize(
    ("optimizer", "low", "high", "value"),
    [
        ("sgd", 1.0, 10.0, 1.0),
        ("momentum", 1.0, 10.0, 1.0),
        ("adamw", 5e-4, 2e-2, 2.5e-3),
        ("lion", 1e-4, 3e-3, (1e-4 * 3e-3) ** 0.5),
        ("soap", 2e-3, 0.16, (2e-3 * 0.16) ** 0.5),
    ],
)
def test_schedule_free_lr(optimizer: str, low: float, high: float, value: float) -> None:
    suggestion = lr_range(optimizer, "schedule_free", TRANSFORMER)
    assert suggestion is not None
    assert (suggestion.low, suggestion.high, suggestion.value) == pytest.approx((low, high, value))
    assert "Schedule-Free" in suggestion.source


def test_muon_lr_is_converted_to_the_scale_of_its_step() -> None:
    """Published for a step scaled by √max(1, m/n); ours is scaled by 0.2·√max(m, n): a factor of 5/√n."""
    suggestion = lr_range("muon", "wsd", replace(TRANSFORMER, num_steps=100_000, fan_in=100))
    assert suggestion is not None
    assert suggestion.value == pytest.approx(0.02 * 5 / 10 * 0.5)
    assert suggestion.low == pytest.approx(8e-3 * 0.25)


def test_decay_of_the_issues_example() -> None:
    suggestion = weight_decay("sgd", "l2", TRANSFORMER)
    assert suggestion is not None
    assert suggestion.value == pytest.approx(5e-6)
    assert suggestion.arithmetic == "1e-4 (medium data) × 0.1 (transformer) × 0.5 (short) = 5e-6"


@pytest.mark.parametrize(
    ("facts", "value"),
    [
        (TaskFacts(1_000, 10, 5_000, "cnn"), 1e-3),  # small × 1, 50 epochs
        (TaskFacts(1_000, 10, 20_000, "resnet", "complex"), 1e-3 * 0.5 * 0.5 * 2),  # 200 epochs
        (TaskFacts(2_000_000, 1_000, 10_000, "transformer", "simple"), 1e-5 * 0.1 * 2 * 0.5),  # 5 epochs
        (TaskFacts(10_000, 100, 5_000, "linear", "simple"), 1e-4 * 2),  # medium begins at 10k; 50 epochs
        (TaskFacts(1_000_000, 1_000, 50_000, "cnn"), 1e-4),  # and ends with 1M
    ],
)
@pytest.mark.parametrize("mode", ["l2", "independent"])
def test_decay_tables(facts: TaskFacts, value: float, mode: str) -> None:
    suggestion = weight_decay("adamw", mode, facts)
    assert suggestion is not None
    assert suggestion.value == pytest.approx(value)
    assert suggestion.low < suggestion.value < suggestion.high


def test_decoupled_decay_of_adaptive_rules_is_far_larger() -> None:
    for optimizer in ("adamw", "soap", "lamb"):
        suggestion = weight_decay(optimizer, "decoupled", TRANSFORMER)
        assert suggestion is not None
        assert (suggestion.low, suggestion.high) == (1e-3, 1.0)
    lion = weight_decay("lion", "decoupled", TRANSFORMER)
    assert lion is not None
    assert (lion.low, lion.high) == (3e-3, 10.0)
    assert weight_decay("momentum", "decoupled", TRANSFORMER) == weight_decay("momentum", "l2", TRANSFORMER)
    assert weight_decay("adamw", "none", TRANSFORMER) is None


def test_decoupled_decay_without_a_source_keeps_the_product_with_the_lr() -> None:
    suggestion = weight_decay("adagrad", "decoupled", TRANSFORMER)
    assert suggestion is not None
    assert suggestion.high * (0.01 * 0.1) ** 0.5 == pytest.approx(1.0 * (1e-4 * 1e-3) ** 0.5)


@pytest.mark.parametrize(
    ("facts", "fraction"),
    [
        (CNN, 0.05),
        (TRANSFORMER, 0.10),
        (replace(TRANSFORMER, fine_tuning=True), 0.06),
        (replace(TRANSFORMER, batch_size=1001), 0.175),
        (replace(TRANSFORMER, batch_size=1000), 0.10),
        (replace(CNN, transfer_learning=True), 0.04),
        (replace(CNN, num_samples=5_000), 0.04),
        (replace(CNN, unstable=True), 0.10),
        (replace(TRANSFORMER, unstable=True), 0.15),
    ],
)
def test_warmup_fraction(facts: TaskFacts, fraction: float) -> None:
    suggestion = warmup_fraction(facts)
    assert suggestion.value == pytest.approx(fraction)
    assert f"{round(fraction * facts.num_steps)} of {facts.num_steps} steps" in suggestion.arithmetic


def test_step_size_and_gamma() -> None:
    long = step_size(replace(CNN, num_steps=20_000))
    assert (long.low, long.high, long.note) == (2000, 4000, "")
    assert 2000 < long.value < 4000
    short = step_size(replace(CNN, num_steps=900))
    assert short.value == 300
    assert "never fire" in short.note
    assert (gamma().low, gamma().high) == (0.1, 0.5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step", "multi_step", "wsd", "schedule_free"])
@pytest.mark.parametrize("mode", ["none", "l2", "decoupled", "independent"])
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "external"])
def test_every_combination_has_values_with_sources(optimizer: str, schedule: str, mode: str) -> None:
    suggestions = {s.key: s for s in suggest_all(optimizer, schedule, mode, TRANSFORMER)}
    assert ("lr" in suggestions) == (optimizer != "external")
    assert ("step_size" in suggestions) == (schedule == "step")
    assert ("weight_decay" in suggestions) == (mode != "none" and not (optimizer == "external" and mode == "decoupled"))
    for suggestion in suggestions.values():
        assert 0 < suggestion.low <= suggestion.value <= suggestion.high
        assert suggestion.source
        assert suggestion.arithmetic
    json.dumps([asdict(s) for s in suggestions.values()])


def test_tables_cover_every_optimizer() -> None:
    assert set(LR_RANGES) == set(OPTIMIZERS)
    assert set(OPTIMIZERS) > ADAPTIVE


def test_suggestions_need_no_torch() -> None:
    """`optsweep suggest` and the command line's checks must not wait for torch."""
    code = "import optsweep.build.suggestions, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("optimizer", sorted(MEASURED_LR))
def test_short_runs_of_small_models_have_measured_learning_rates(optimizer: str) -> None:
    """Best in a run of 200 steps at width 64; half of it in one four times as long, or of four times the width."""
    short = replace(TRANSFORMER, num_steps=200, fan_in=64)
    found = lr_range(optimizer, "cosine", short)
    assert found is not None
    measured = MEASURED_LR[optimizer]
    assert found.low <= measured.middle <= found.high
    for optimizer_s_own in (replace(short, fan_in=None), replace(short, architecture="cnn")):
        published = lr_range(optimizer, "cosine", optimizer_s_own)
        assert published is not None
        assert "measured" not in published.arithmetic, "neither width nor kind of model is one that was measured"
    assert measured.at(800, 64) == measured.at(200, 256) == pytest.approx(measured.middle / 2)


def test_a_measured_range_says_so_beside_the_published_one_and_ends_where_that_holds() -> None:
    found = lr_range("adamw", "cosine", replace(TRANSFORMER, num_steps=200, fan_in=64))
    assert found is not None
    assert (found.low, found.high, found.value) == pytest.approx((4e-3, 0.4, 0.04), rel=1e-3)
    assert found.arithmetic.startswith("1e-4 – 1e-3 × 0.316 – 3.16 (measured) × 126 (measured here (benchmarks/lr_")
    assert found.source == "Deck, learning-rate ranges: Adam, AdamW, shifted as measured here (benchmarks/lr_grid.py)"
    scale = lr_range("adamw", "cosine", replace(TRANSFORMER, num_steps=1_000_000, fan_in=768))
    assert scale is not None
    assert (scale.low, scale.high) == (1e-4, 1e-3)
    ends = [lr_range("adamw", "cosine", replace(TRANSFORMER, num_steps=n, fan_in=768)) for n in (266_000, 267_000)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].low == pytest.approx(ends[1].low, rel=0.03), "no jump"


def test_published_learning_rates_of_schedule_free_stay_as_they_are() -> None:
    found = lr_range("adamw", "schedule_free", replace(TRANSFORMER, num_steps=200, fan_in=64))
    assert found is not None
    assert (found.low, found.high) == (5e-4, 2e-2)


def test_the_measured_ranges_hold_the_best_of_the_grids_that_they_were_read_from() -> None:
    grids = [optimum(entry) for entry in json.loads(MEASURED.read_text())]
    assert len(grids) > 100
    assert sum(grid.suggested for grid in grids) > 0.85 * len(grids)
