"""Random numbers of a training run as a pure function of the seed and of their place in the run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draws(seed: int, first: int, count: int, high: int) -> NDArray[np.int64]:
    """Numbers `first` to `first + count` of the seed's stream, uniform in [0, high), `high` < 2³².

    Philox (Salmon 2011) is a function of a counter, four numbers at each, so no number depends on those before it; the
    upper 32 bits times `high` are uniform to within high / 2³² (Lemire 2019, without his rejection).
    """
    raw = np.random.Philox(key=seed, counter=first // 4).random_raw(first % 4 + count)[first % 4 :]
    return ((raw >> np.uint64(32)) * np.uint64(high) >> np.uint64(32)).astype(np.int64)
