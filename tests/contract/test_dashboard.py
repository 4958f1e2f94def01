"""`optsweep ui --optuna`: the studies as Optuna's dashboard gets them, named for people, and only to look at."""

from __future__ import annotations

import importlib.util
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from optsweep.cli.doorman import run
from optsweep.errors import UserError
from optsweep.launch.browse import dashboard
from optsweep.launch.browse.dashboard import ReadOnly, ShownStorage, names_of
from optsweep.launch.browse.ui import listen
from optsweep.search.process import process_name
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.train.trial import End, Phase

ARMS = [f"task=iris optimizer={name} schedule=step" for name in ("sgd", "adamw")]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two sweeps of two arms, in one of which a trial is done."""
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard')}/optuna.db"
    for sweep in ("mine", "other"):
        studies = Studies.open(url, sweep)
        with studies.take_seat(ARMS, whole=True) as seat:
            for arm in ARMS:
                studies.set_note(arm, "content", {"search.space.lr": [0.01, 1.0, True]})
                setting: dict[str, Any] = {"lr": 2.0, "task.width": "wide"}
                studies.enqueue(seat, arm, Phase.SEARCH, Slot(0, setting, 3, "model"))
                studies.ensure(arm, Phase.CONFIRM)
                studies.ensure(arm, Phase.CONFIRM, 1)
        (done,) = studies.pop(ARMS[0], Phase.SEARCH, process_name(), 60.0, 1)
        studies.tell(done.claim, End.FINISHED, 1.5, 12.0)
    return url


def test_studies_are_named_for_people() -> None:
    studies = [f"mine | {arm} | {phase}" for arm in ARMS for phase in ("search", "confirm", "confirm | 1")]
    found = names_of([*studies, "somebody else's"])
    assert list(found) == studies
    assert found[studies[0]] == "mine · sgd + step · search"
    assert found[studies[5]] == "mine · adamw + step · confirm 2"


def test_trials_have_their_settings_as_parameters(storage: str) -> None:
    shown = ShownStorage.of(storage, "mine")
    assert {study.study_name.partition(" ")[0] for study in shown.get_all_studies()} == {"mine"}
    (trial,) = shown.get_all_trials(shown.get_study_id_from_name("mine · sgd + step · search"))
    assert trial.params == {"lr": 2.0, "task.width": "wide"}
    assert trial.distributions == {
        "lr": FloatDistribution(0.01, 2.0, log=True),  # as noted, and as far as it was tried
        "task.width": CategoricalDistribution(["wide"]),
    }
    assert trial.user_attrs == {"slot": 0, "seed": 3, "origin": "model", "end": "finished", "train_seconds": 12.0}
    assert shown.get_trial(trial._trial_id).params == trial.params


def test_nothing_is_written(storage: str) -> None:
    shown = ShownStorage.of(storage, None)
    (study, *_) = shown.get_all_studies()
    for write in (
        lambda: shown.delete_study(study._study_id),
        lambda: shown.set_study_user_attr(study._study_id, "a", 1),
    ):
        with pytest.raises(PermissionError):
            write()


def test_an_unknown_sweep_is_refused_with_the_nearest(storage: str) -> None:
    with pytest.raises(UserError, match=r"no sweep is called mina \(did you mean mine\?\); there are mine, other"):
        ShownStorage.of(storage, "mina")


def test_no_store_is_said_and_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no store at"):
        ShownStorage.of(f"sqlite:///{tmp_path}/optuna.db", None)
    assert not list(tmp_path.iterdir())


def test_without_the_extra_its_pip_line_is_said(
    storage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    assert run(["ui", "--optuna", "--no-browser", "--storage", storage]) == 2
    assert "pip install 'optsweep[dashboard]'" in capsys.readouterr().err


def test_who_writes_or_comes_by_another_name_is_refused() -> None:
    answered: list[str] = []

    def app(environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [])
        return [b"yes"]

    guarded = ReadOnly(app)

    def heard(status: str, headers: Any, error: Any = None) -> Any:
        answered.append(status)

    for method, host in (("GET", "127.0.0.1:5000"), ("DELETE", "127.0.0.1:5000"), ("GET", "evil.example:5000")):
        guarded({"REQUEST_METHOD": method, "HTTP_HOST": host}, heard)
    assert answered == ["200 OK", "403 Forbidden", "403 Forbidden"]


@pytest.fixture
def served(storage: str) -> Iterator[str]:
    """The address of a dashboard that runs in a thread."""
    if importlib.util.find_spec("optuna_dashboard") is None:
        pytest.skip("needs the extra `dashboard`")
    from optuna_dashboard import wsgi

    listening = listen(5000)
    port = listening.getsockname()[1]
    app = ReadOnly(wsgi(ShownStorage.of(storage, "mine")))
    with dashboard.server_of(listening, app) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{port}"
        server.shutdown()
        thread.join()


def test_the_dashboard_shows_them(served: str) -> None:
    with urllib.request.urlopen(f"{served}/api/studies") as answer:
        (study, *_) = json.loads(answer.read())["study_summaries"]
    assert study["study_name"] == "mine · sgd + step · search"
    with urllib.request.urlopen(f"{served}/api/studies/{study['study_id']}") as answer:
        found = json.loads(answer.read())
    assert [held["name"] for held in found["trials"][0]["params"]] == ["lr", "task.width"]
    assert found["objective_names"] == ["val/loss"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(f"{served}/api/studies/{study['study_id']}", method="DELETE"))
