"""Who is alive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from optsweep.search import process
from optsweep.search.process import is_alive, process_name


def test_a_process_is_told_from_others_of_its_number() -> None:
    me = process_name()
    host, pid, start = me.rsplit("/", 2)
    assert is_alive(me) is True
    assert is_alive(f"{host}/{pid}/1{start}") is False
    assert is_alive(f"{host}/1/{start}") is False, "init began in another tick"
    assert is_alive(f"{host}/{2**22 + 1}/{start}") is False, "no process has so high a number"
    assert is_alive(f"elsewhere/{pid}/{start}") is None
    assert is_alive("") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start is a time, and follows the clock")
def test_the_start_is_counted_from_boot_so_a_clock_that_is_set_does_not_change_it() -> None:
    boot, _, ticks = process_name().rpartition("/")[2].rpartition(".")
    since_boot = psutil.Process().create_time() - psutil.boot_time()  # both follow the clock, the difference doesn't
    assert int(ticks) / os.sysconf("SC_CLK_TCK") == pytest.approx(since_boot, abs=2)
    assert len(boot.partition(".")[0]) == 36


def test_one_that_has_ended_is_dead_though_nobody_has_waited_for_it_and_a_stopped_one_lives() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host = process_name().rsplit("/", 2)[0]
    name = f"{host}/{child.pid}/{process._found(child.pid).start}"
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    assert is_alive(name) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert is_alive(name) is False
    child.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="containers")
def test_numbers_of_another_container_say_nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process_name()
    monkeypatch.setattr(process, "_numbering", lambda: "1")
    assert is_alive(before) is None
    assert is_alive(process_name()) is True
    monkeypatch.setattr(process, "_boot", lambda: "another")
    assert is_alive(before) is False, "its boot is over"
