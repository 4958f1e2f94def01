"""Who is alive."""

from __future__ import annotations

import os
import sys

import psutil
import pytest

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
    assert int(ticks) / os.sysconf("SC_CLK_TCK") == pytest.approx(since_boot, abs=1)
    assert len(boot) == 36
