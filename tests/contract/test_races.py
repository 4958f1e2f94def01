"""Whoever is first has a trial, and what it was promised is kept: real processes, one SQLite file."""

from __future__ import annotations

import pytest

from races import Count, race

RACES = 60
"""Of each kind; `python tests/races.py 1000` runs more."""


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> list[Count]:
    return race(tmp_path_factory.mktemp("races"), RACES)


def test_no_trial_has_two_owners_and_no_sweep_two_planners(counts: list[Count]) -> None:
    assert {count.kind: count.double for count in counts} == {count.kind: 0 for count in counts}


def test_no_result_is_lost_and_the_store_has_what_the_winner_was_told(counts: list[Count]) -> None:
    assert {count.kind: count.lost for count in counts} == {count.kind: 0 for count in counts}


def test_both_sides_win_some(counts: list[Count]) -> None:
    """Or the races were none."""
    assert any(0 < count.won < count.races for count in counts)
