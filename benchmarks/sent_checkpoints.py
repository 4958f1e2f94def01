"""What a checkpoint takes in a folder, and would take as an artifact of an MLflow server: seconds of one worker.

    PYTHONPATH=tests python benchmarks/sent_checkpoints.py

The state of AdamW for as many parameters as charlm_1m and charlm_10m have, random. The folder is on a local disk, the
server on this machine; both take turns, three rounds. docs/design.md has the output.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from urllib.request import Request, urlopen

import torch

from optsweep.launch.worker.checkpoints import Checkpoints, Owner
from servers.parts import mlflow_server, postgres

SIZES = {"charlm_1m": 1_263_232, "charlm_10m": 10_916_736}
ROUNDS = 3


def main() -> None:
    """Print a line for each size."""
    with tempfile.TemporaryDirectory() as held, postgres() as database:
        folder = Path(held)
        with mlflow_server(database.make_database("runs"), folder) as server:
            for name, count in SIZES.items():
                files = Checkpoints(folder / "checkpoints" / name)
                rows = {kind: torch.randn(count) for kind in ("parameters", "mean", "square")}
                written, sent = [], []
                for _ in range(ROUNDS):
                    begin = time.perf_counter()
                    files.write("trial", Owner("arm", "trial"), {"training": rows})
                    written.append(time.perf_counter() - begin)
                    content = (files.folder / "trial.pt").read_bytes()
                    sent.append(_sent(f"{server.address}/api/2.0/mlflow-artifacts/artifacts/{name}.pt", content))
                seconds = [f"{min(taken):.2f} to {max(taken):.2f} s" for taken in (written, sent)]
                print(f"{name}: {len(content) / 1e6:.0f} MB, written in {seconds[0]}, sent in {seconds[1]}", flush=True)


def _sent(address: str, content: bytes) -> float:
    """Seconds that it takes to put an artifact."""
    begin = time.perf_counter()
    with urlopen(Request(address, data=content, method="PUT")) as answer:
        answer.read()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
