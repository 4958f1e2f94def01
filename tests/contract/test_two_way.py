"""Differences over seeds and samples: right as often as stated where the truth is known, never bolder than seeds."""

from __future__ import annotations

import numpy as np
import pytest

from optsweep.inference.statistics import PairedT, paired_t
from optsweep.inference.two_way import Array, two_way


def crossed(cells: Array) -> PairedT:
    return two_way(list(cells.mean(1)), cells)


def drawn(rng: np.random.Generator, seeds: int, blocks: int, sizes: tuple[float, float, float]) -> Array:
    of_seeds, of_samples, of_both = sizes
    return np.asarray(
        of_seeds * rng.standard_normal((seeds, 1))
        + of_samples * rng.standard_normal((1, blocks))
        + of_both * rng.standard_normal((seeds, blocks))
    )


@pytest.mark.parametrize("sizes", [(1.0, 0.0, 1.0), (1.0, 3.0, 3.0), (0.0, 8.0, 8.0), (0.1, 1.0, 0.1)])
@pytest.mark.parametrize(("seeds", "blocks"), [(4, 32), (8, 16)])
def test_it_covers_what_other_seeds_and_other_samples_would_give(
    sizes: tuple[float, float, float], seeds: int, blocks: int
) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(800):
        found = crossed(drawn(rng, seeds, blocks, sizes))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered / 800 > 0.92


def test_seeds_alone_miss_it_where_samples_decide() -> None:
    rng = np.random.default_rng(7)
    missed = sum((paired_t(drawn(rng, 8, 16, (0.1, 3.0, 3.0)).mean(1)).p or 1) < 0.05 for _ in range(400))
    assert missed / 400 > 0.3


def test_it_is_never_narrower_than_over_seeds_and_has_their_mean() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        cells = drawn(rng, 3, 8, (0.05, 1.0, 1.0)) + 1.0
        found, seeds = crossed(cells), paired_t(cells.mean(1))
        assert found.mean == seeds.mean
        assert found.p is not None
        assert seeds.p is not None
        assert found.low is not None
        assert seeds.low is not None
        assert found.p >= seeds.p
        assert found.low <= seeds.low


def test_without_enough_samples_or_seeds_it_is_that_of_the_seeds() -> None:
    cells = np.array([[1.0, 2.0, 1.5], [1.2, 1.9, 1.4]])
    assert crossed(cells) == paired_t(cells.mean(1))
    assert crossed(np.ones((1, 9))) == paired_t([1.0])
    assert crossed(np.ones((4, 9))).p is None


def test_blocks_in_which_nothing_differs_leave_the_seeds_alone() -> None:
    differences = [0.1, 0.2, 0.15]
    assert two_way(differences, np.zeros((3, 8))) == paired_t(differences)
