"""The two ends of a command: what a planner imports, when a report is made ready, and what is left when it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from optsweep.launch.events import ArmProgress, Event, Progressed, Started, Trained
from optsweep.launch.last_page import prepared_to_draw
from optsweep.report import HelpersOnCall, processes

HELD = """
import sqlite3, sys
from optsweep.garbage import end_soon

class Cycle:
    def __init__(self):
        self.me = self
        self.database = sqlite3.connect(sys.argv[1])
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.execute("CREATE TABLE kept (x)")
        self.database.commit()

held = Cycle()
end_soon()
"""


def test_a_planner_has_no_use_for_torch() -> None:
    """It takes a second to import, in which nothing trains."""
    code = (
        "import sys; from optsweep.launch import last_page, provisional, sweep, timing; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_databases_are_closed_where_python_doesn_t_look_for_garbage_any_more(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", HELD, "x.db"], cwd=tmp_path, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"], "its log is in it"


def arm(phase: str, done: int, *, may_grow: bool = False, seconds: float | None = 0.5) -> ArmProgress:
    return ArmProgress("a", 10, may_grow, done, phase=phase, mean_seconds=seconds)


@pytest.mark.parametrize(
    ("arms", "ready"),
    [
        ([arm("confirm", 8), arm("confirm", 10)], True),
        ([arm("confirm 2/2", 8)], True),
        ([arm("confirm", 8), arm("search", 8)], False),
        ([arm("confirm", 1)], False),
        ([arm("confirm", 9, may_grow=True)], False),
        ([arm("confirm", 9, seconds=None)], False),
        ([arm("confirm", 10)], False),
    ],
    ids=["last", "last repeat", "a search goes on", "a while yet", "may grow", "unknown", "nothing to train"],
)
def test_helpers_begin_shortly_before_the_last_trials_end(
    arms: Sequence[ArmProgress], *, ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    left: list[bool] = []
    monkeypatch.setattr(HelpersOnCall, "prepare", lambda self: begun.append(True))
    monkeypatch.setattr(HelpersOnCall, "leave_the_machine_alone", lambda self: left.append(True))
    heard: list[Event] = []
    with ExitStack() as until:
        hear = prepared_to_draw(HelpersOnCall(2, until), heard.append)
        for event in (Started("s", 2), Progressed(arms)):
            hear(event)
        assert heard == [Started("s", 2), Progressed(arms)]
        assert not left
        hear(Trained())
    assert begun == [True] * ready
    assert left == [True], "what follows is timed"


def test_training_goes_on_whatever_becomes_of_who_is_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_more(processes: int) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(processes, "helpers", none_more)
    monkeypatch.setattr(processes, "import_what_draws", lambda: None)
    ready: Future[None] = Future()
    ready.set_exception(ImportError("no font"))
    with ExitStack() as until:
        without, broken = HelpersOnCall(2, until), HelpersOnCall(2, until)
        vars(broken)["there"] = SimpleNamespace(ready=ready)
        for drawing in (without, broken):
            drawing.prepare()
            drawing.leave_the_machine_alone()
        assert without.there is None, "this process draws alone"
