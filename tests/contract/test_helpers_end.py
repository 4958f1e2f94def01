"""Processes that help to draw end with the one that they help, however that ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal
from optsweep.report.processes import helpers

if __name__ == "__main__":
    with helpers(2) as helped:
        print(helped.pool.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_helper_ends_when_who_draws_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "draws.py"
    script.write_text(SCRIPT, encoding="utf-8")
    # Returns when nobody holds the pipe any more, so a helper that stays is a TimeoutExpired.
    drawing = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    assert drawing.stdout.strip().isdecimal()
