"""The default sweep, end to end in an empty folder: how long it takes, and how much of that is training.

Training is what trials spend in their steps: evaluations count as much against it as imports, planning, the timing
pass, tracking and the report do. The whole command is timed from before the interpreter starts until the page is there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from benchmarks.side_by_side import Figure

from optsweep.tracking.writer import Tracker

SWEEP = "soap_schedulefree_vs_adamw_cosine"


def run(device: torch.device) -> list[Figure]:
    """Minutes from the command to the report, and Σ training time ÷ (wall-clock × workers)."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "optsweep", "-cn", SWEEP, f"trainer.device={device.type}"]
        subprocess.run(command, cwd=folder, check=True)
        minutes = (time.perf_counter() - begin) / 60
        tracker = Tracker(f"sqlite:///{Path(folder)}/mlruns/mlflow.db", SWEEP)
        sheet = tracker.sweep_sheet(tracker.sweep_run())
        assert sheet is not None
        trials = {title.label: len(tracker.trials(title.name)) for title in sheet.plan.arms}
        tracker.client._tracking_client.store.engine.dispose()
    trained = sum(session.train_seconds for session in sheet.sessions)
    workers = sheet.sessions[0].workers
    span = sum(session.end - session.start for session in sheet.sessions)
    counts = ", ".join(f"{label}: {count} trials" for label, count in trials.items())
    whole, session = trained / (60 * minutes * workers), trained / (span * workers)
    return [
        _figure("default sweep, command to report", f"{minutes:.2f} min", counts, minutes, 8.0, "7.5", "min"),
        _figure(
            "default sweep, training ÷ (session × workers)",
            f"{trained:.0f} s of training",
            f"{workers} workers for {span:.0f} s",
            session,
            None,
            "0.95",
            "",
        ),
        _figure(
            "default sweep, training ÷ (whole command × workers)",
            f"{trained:.0f} s of training",
            f"{workers} workers for {60 * minutes:.0f} s, with imports, timing pass and report",
            whole,
            0.93,
            "0.93",
            "",
        ),
    ]


def _figure(what: str, ours: str, against: str, value: float, target: float | None, expected: str, unit: str) -> Figure:
    return Figure(what, ours, against, value, value, value, 1, expected, target, unit, at_least=unit == "")
