"""Who is alive."""

from __future__ import annotations

import psutil
import pytest

from optsweep.launch.worker import is_alive, worker_name


def test_a_worker_is_known_by_its_start_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    me = worker_name()
    host, pid, started = me.rsplit("/", 2)
    created, booted = psutil.Process.create_time, psutil.boot_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 3600)  # as a set clock does
    monkeypatch.setattr(psutil, "boot_time", lambda: booted() + 3600)
    assert is_alive(me) is True
    assert is_alive(f"{host}/{pid}/{float(started) + 5}") is False, "another process with the same number"
    assert is_alive(f"elsewhere/{pid}/{started}") is None
