"""The same sweep, same seeds, wherever it runs: the same trials, the same numbers, the same words but of its times."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers.watched import SWEEP, Kept, ended, kept, num_done, wait_for
from sweeping import run, start

NAME = "everywhere"


@dataclass(frozen=True)
class Stores:
    """Where a sweep is kept."""

    storage: str
    tracking_uri: str

    @property
    def keys(self) -> list[str]:
        return [f"tracking.storage='{self.storage}'", f"tracking.uri={self.tracking_uri}"]

    @property
    def options(self) -> list[str]:
        return ["--storage", self.storage, "--tracking-uri", self.tracking_uri]


def _local(request: pytest.FixtureRequest, folder: Path, stores: Stores) -> None:
    run(folder, "-m", *SWEEP, f"sweep.name={NAME}", "hydra.launcher.workers=2", *stores.keys)


def _by_hand(request: pytest.FixtureRequest, folder: Path, stores: Stores) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    planner = start(folder, "-m", *SWEEP, f"sweep.name={NAME}", "hydra.launcher.workers=1", *stores.keys)
    wait_for(lambda: num_done(stores.storage, NAME) >= 1, planner)
    helper = start(elsewhere, "work", NAME, *stores.options, "--workers", "1")
    ended(planner)
    assert ended(helper).splitlines()[-1] == f"sweep {NAME} is done"


def _ray(request: pytest.FixtureRequest, folder: Path, stores: Stores) -> None:
    nodes = request.getfixturevalue("ray_nodes")
    launcher = ["hydra/launcher=ray", f"hydra.launcher.address={nodes.address}"]
    assert "2 workers" in run(folder, "-m", *SWEEP, f"sweep.name={NAME}", *launcher, *stores.keys)


def _slurm(request: pytest.FixtureRequest, folder: Path, stores: Stores) -> None:
    request.getfixturevalue("slurm_nodes")
    launcher = ["hydra/launcher=slurm", "hydra.launcher.workers=1", "hydra.launcher.wait=true"]
    run(folder, "-m", *SWEEP, f"sweep.name={NAME}", *launcher, *stores.keys)


def _on_files(request: pytest.FixtureRequest, folder: Path) -> Stores:
    return Stores(f"sqlite:///{folder}/mlruns/optuna.db", f"sqlite:///{folder}/mlruns/mlflow.db")


def _on_servers(request: pytest.FixtureRequest, folder: Path) -> Stores:
    return Stores(request.getfixturevalue("storage"), request.getfixturevalue("servers").mlflow.address)


Place = Callable[[pytest.FixtureRequest, Path, Stores], None]
"""Runs the sweep to its end; what it needs is a fixture, which skips where it can't be had."""

PLACES: Sequence[tuple[Place, Callable[[pytest.FixtureRequest, Path], Stores]]] = [
    (_local, _on_files),
    (_by_hand, _on_files),
    (_local, _on_servers),
    (_by_hand, _on_servers),
    (_ray, _on_files),
    (_ray, _on_servers),
    (_slurm, _on_servers),
]


def _title(value: Callable[..., object]) -> str:
    return value.__name__.strip("_")


@pytest.mark.parametrize(("place", "where"), PLACES, ids=_title)
def test_the_same_trials_numbers_and_words(
    place: Place,
    where: Callable[[pytest.FixtureRequest, Path], Stores],
    request: pytest.FixtureRequest,
    reference: Kept,
    words: Sequence[str],
    tmp_path: Path,
) -> None:
    stores = where(request, tmp_path)
    place(request, tmp_path, stores)
    assert kept(stores.storage, stores.tracking_uri, NAME) == reference
    assert _words(tmp_path, NAME, stores) == words


@pytest.fixture(scope="module")
def words(on_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    local = Stores(f"sqlite:///{on_files}/mlruns/optuna.db", f"sqlite:///{on_files}/mlruns/mlflow.db")
    found = _words(tmp_path_factory.mktemp("words"), "files", local)
    assert any("mean test loss" in sentence for sentence in found)
    return found


_TIMES = re.compile(r" and [^ ]+× the time \([^)]*\)")


def _words(folder: Path, sweep: str, stores: Stores) -> list[str]:
    """The verdicts of a sweep's report, without what they say of time, which is of a machine at an hour."""
    run(folder, "report", sweep, *stores.options, "--out", "words")
    verdicts = json.loads((folder / "words" / "results.json").read_text())["verdicts"]
    sentences = [sentence for verdict in verdicts for sentence in re.split(r"(?<=\.) ", _TIMES.sub("", verdict))]
    return [sentence for sentence in sentences if "the time" not in sentence and "machine" not in sentence]
