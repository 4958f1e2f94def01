"""`optsweep watch`: a line where something changes, an end as the sweep's, and patience with stores that fail."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from living import ADAMW, DEAD, JUMPS, SGD, Living, tracking
from optsweep.cli.doorman import run
from optsweep.errors import SweepFailedError, UserError
from optsweep.launch.live import server as live_server
from optsweep.launch.live.reading import LiveView, Watching
from optsweep.launch.live.report import LEAST_SECONDS, SETTLING_SECONDS, Pace
from optsweep.launch.live.terminal import REPORT_SECONDS, STOPPED_SECONDS, changes, drawn, is_over, watch
from optsweep.launch.status import PLANNED, REPORT
from optsweep.tracking import names
from optsweep.tracking.links import LIVE_PORT, address_of_ui
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tracking(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path)


@pytest.fixture
def watching(living: Living, runs: str) -> Watching:
    return Watching(living.storage, runs, "s")


def test_in_a_pipe_a_line_says_what_is_other_than_before(living: Living, watching: Watching) -> None:
    first = watching.look()
    assert list(changes(None, first)) == ["sweep s: 0 of 12 trials done"]
    assert list(changes(first, watching.look())) == []
    living.tell(living.pop(SGD), value=0.5)
    living.tell(living.pop(SGD), End.DIVERGED)
    living.show(living.pop(ADAMW), JUMPS)
    living.pop(ADAMW, DEAD)
    second = watching.look()
    said = list(changes(first, second))
    assert said[0] == (
        "sweep s: 2 of 12 trials done, 2 running, about 1 min 40 s left; best on validation so far 0.5, sgd + cosine"
    )
    assert [line.split(" ", 3)[-1] for line in said[1:2]] == ["sgd + cosine · search 1 diverged (lr 0.1)"]
    assert "adamw + cosine · search 0 jumps (on validation from 0.5 to 40 at step 30)" in said[2]
    assert "4194303" in said[3]
    assert "is dead: trains adamw + cosine · search 1" in said[3]
    assert list(changes(second, watching.look())) == []


def test_on_a_terminal_all_of_it_is_on_one_screen(living: Living, watching: Watching) -> None:
    living.tell(living.pop(SGD), value=0.5)
    console = Console(file=io.StringIO(), width=80, height=40, markup=False)
    console.print(drawn(watching.look()))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split() == ["sgd", "+", "cosine", "search", "1/6", "–", "–", "–", "–", "0.5"] for line in lines)
    assert any("at work, plans" in line for line in lines)


def ended(view: LiveView, failure: str | None = None) -> LiveView:
    return replace(view, finding=replace(view.finding, reported=True, failure=failure))


def test_it_ends_as_the_sweep_does(living: Living, watching: Watching) -> None:
    running = watching.look()
    assert not is_over(replace(running, quiet=STOPPED_SECONDS + 1))
    living.seat.release()
    stopped = watching.look()
    assert not is_over(stopped)  # another may plan soon
    with pytest.raises(UserError, match="sweep s has stopped, 0 of 12 trials are done; to go on: its own command"):
        is_over(replace(stopped, quiet=STOPPED_SECONDS + 1))
    living.finish()
    trained = watching.look()
    assert not is_over(trained)  # its report is being written
    with pytest.raises(UserError, match="all trials are there and its report isn't"):
        is_over(replace(trained, quiet=REPORT_SECONDS + 1))
    assert is_over(ended(trained))
    with pytest.raises(SweepFailedError, match=r"mine\.py"):
        is_over(ended(trained, "mine.py:3: no"))


def test_where_no_report_was_asked_for_none_is_waited_for(living: Living, watching: Watching) -> None:
    living.finish()
    for arm in (SGD, ADAMW):
        assert watching.look().snapshot.report is None, "it may be still to come"
        living.studies.set_note(arm, REPORT, {"of": [4, 2, 1], "page": None})
    view = watching.look()
    assert "12 trials done, no report was asked for: `optsweep report s` writes it" in next(changes(None, view))
    view = replace(view, finding=replace(view.finding, unasked=True))
    assert is_over(view)
    with pytest.raises(SweepFailedError):
        is_over(replace(view, finding=replace(view.finding, failure="mine.py:3: no")))
    living.studies.set_note(SGD, PLANNED, [8, 2, 1])
    assert watching.look().snapshot.report is None, "what it has grown by"


def test_a_report_that_is_there_is_not_being_written(living: Living, watching: Watching, tmp_path: Path) -> None:
    living.finish()
    assert "12 trials done, its report is being written" in next(changes(None, watching.look()))
    for arm in (SGD, ADAMW):
        living.studies.set_note(arm, REPORT, {"of": [4, 2, 1], "page": str(tmp_path / "index.html")})
    view = watching.look()
    assert not view.finding.reported, "nothing of its runs says so yet"
    assert f"12 trials done, report: {tmp_path / 'index.html'}" in next(changes(None, view))


def test_who_times_the_steps_of_what_is_trained_is_waited_for(living: Living, runs: str) -> None:
    now = 0.0
    watching = Watching(living.storage, runs, "s", lambda: now)
    for arm in (SGD, ADAMW):
        living.studies.set_note(arm, "finished", [4, 2, 1])
    now = REPORT_SECONDS + 1
    assert watching.look().quiet == 0.0
    living.seat.release()
    now += 1
    assert watching.look().quiet == 1.0


def test_a_store_that_vanishes_is_said_to_and_not_made_anew(living: Living, watching: Watching, tmp_path: Path) -> None:
    file, aside = tmp_path / "optuna.db", tmp_path / "aside.db"
    before = watching.look()
    living.studies.engine.dispose()
    file.rename(aside)
    gone = watching.look()
    assert not file.exists()
    assert [line.split(" (")[0] for line in gone.troubles] == ["the studies' storage can't be read"]
    assert gone.snapshot == before.snapshot
    aside.rename(file)
    assert watching.look().troubles == ()


def test_ctrl_c_ends_it_quietly(
    living: Living, runs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optsweep.launch.live.terminal.time.sleep", interrupt)
    assert run(["watch", "s", "--storage", living.storage, "--tracking-uri", runs]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["watch", "ss"], "no sweep is called ss (did you mean s?); there are s"),
        (["ui", "ss", "--live"], "no sweep is called ss (did you mean s?); there are s"),
        (["ui", "--live"], "--live needs the NAME of a sweep"),
        (["watch"], "the following arguments are required: NAME"),
        (["watch", "s", "--tracking-uri", "sqlite:///none.db"], "none.db"),
        (["watch", "s", "--storage", "sqlite:///none.db"], "there is no store at"),
    ],
)
def test_what_cannot_be_watched_is_said_in_a_line(
    living: Living, runs: str, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [] if "--storage" in arguments else ["--storage", living.storage]
    options += [] if "--tracking-uri" in arguments else ["--tracking-uri", runs]
    assert run([*arguments, *options]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert not Path("none.db").exists()


@pytest.mark.parametrize(("given", "port"), [([], LIVE_PORT), (["--port", "6000"], 6000)])
def test_a_live_page_leaves_their_port_to_the_runs_it_links_to(
    living: Living, runs: str, monkeypatch: pytest.MonkeyPatch, given: list[str], port: int
) -> None:
    served: list[int] = []
    monkeypatch.setattr(live_server, "serve", lambda watching, port, *rest: served.append(port))
    assert run(["ui", "s", "--live", "--storage", living.storage, "--tracking-uri", runs, *given]) == 0
    assert served == [port]
    assert str(port) not in address_of_ui(runs)


def test_a_store_of_another_version_is_refused(
    living: Living, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = tracking(tmp_path)
    tracker = Tracker(uri, "s")
    tracker.client.set_tag(tracker.sweep_run(), names.SCHEMA, "999")
    assert run(["watch", "s", "--storage", living.storage, "--tracking-uri", uri]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "sweep s was written by a newer version of optsweep" in said


def test_runs_are_read_where_something_happened_and_seldom() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.due("a")
    pace.took(0.1)
    assert not pace.due("b")
    now = LEAST_SECONDS
    assert pace.due("b")
    pace.took(2.0)  # a tenth of the time
    now += 19.0
    assert not pace.due("c")
    now += 1.0
    assert pace.due("c")
    pace.took(SETTLING_SECONDS / 5)  # so that the next may come later than all has settled
    now += 2 * SETTLING_SECONDS
    assert pace.due("c")  # what was on its way at the last one
    pace.took(0.1)
    now += LEAST_SECONDS
    assert not pace.due("c")  # nothing has happened since


def test_a_pipe_that_is_closed_ends_it(living: Living, watching: Watching) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        watch(watching, Closed())
