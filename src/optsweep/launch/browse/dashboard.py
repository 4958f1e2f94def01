"""Optuna's dashboard over the studies: only to look at, and named for people.

A study's own name and its notes are what the sweep finds it by, so the dashboard gets a storage that shows others and
that nothing can be written to.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from typing import Any, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from optsweep.errors import UserError, nearest
from optsweep.launch.browse.ui import is_asked_for_here, listen_and_say
from optsweep.launch.prepare.continuity import CONTENT
from optsweep.launch.status import check_there, short_names, there_are
from optsweep.search.storage import storage_at
from optsweep.search.study_names import StudyName
from optsweep.tracking import names

_SPACE = "search.space."
_OBJECTIVE = {"study:metric_names": [names.VAL_LOSS]}
"""As Optuna keeps it."""

_SHOWN = ("slot", "seed", "origin", "end", "error", "train_seconds", "test_loss")
"""What of a trial's attributes a person may want to see."""


def show_studies(
    storage: str, sweep: str | None, port: int, tell: Callable[[str], None], browse: Callable[[str], None]
) -> None:
    """Serve the dashboard until the user ends it; of one sweep or of all.

    Raises UserError for a store or sweep that isn't there, and where the dashboard isn't installed.
    """
    if find_spec("optuna_dashboard") is None:
        raise UserError("--optuna: Optuna's dashboard isn't installed; pip install 'optsweep[dashboard]'")
    shown = ShownStorage.of(storage, sweep)
    from optuna_dashboard import wsgi

    listening, where = listen_and_say(port, tell)
    page = f"{where}/dashboard"
    tell(f"{page}\nCtrl-C ends it")
    browse(page)
    with server_of(listening, ReadOnly(wsgi(shown))) as server, suppress(KeyboardInterrupt):
        server.serve_forever()


# -- the studies -----------------------------------------------------------------------------------------------------


def names_of(studies: Sequence[str]) -> dict[str, str]:
    """ "mine · adamw + cosine · search" by the names that studies have; those that aren't of a sweep are left out."""
    of = {name: study for name in studies if (study := StudyName.read(name)) is not None}
    found = {}
    for sweep in dict.fromkeys(study.sweep for study in of.values()):
        arms = list(dict.fromkeys(study.arm for study in of.values() if study.sweep == sweep))
        labels = dict(zip(arms, short_names(arms), strict=True))
        for name, study in of.items():
            if study.sweep == sweep:
                again = f" {study.repeat + 1}" if study.repeat else ""
                found[name] = f"{sweep} · {labels[study.arm]} · {study.phase}{again}"
    return found


class ShownStorage(BaseStorage):
    """The studies of a sweep, or of all, under other names; trials with their settings as parameters."""

    def __init__(self, storage: RDBStorage, shown: Mapping[str, str]) -> None:
        self._storage, self._names = storage, shown
        self._ids = {shown[s.study_name]: s._study_id for s in storage.get_all_studies() if s.study_name in shown}
        self._shown = {number: name for name, number in self._ids.items()}

    @classmethod
    def of(cls, url: str, sweep: str | None) -> ShownStorage:
        """Raises UserError, naming the nearest, for a sweep that isn't there."""
        check_there(url)
        storage = storage_at(url, make=False)
        found = names_of([study.study_name for study in storage.get_all_studies()])
        sweep_of = {name: study.sweep for name in found if (study := StudyName.read(name)) is not None}
        sweeps = sorted(set(sweep_of.values()))
        if sweep is not None and sweep not in sweeps:
            raise UserError(f"no sweep is called {sweep}{nearest(sweep, sweeps)}; {there_are(sweeps)}")
        wanted = {name: shown for name, shown in found.items() if sweep in (None, sweep_of[name])}
        return cls(storage, wanted)

    def get_all_studies(self) -> list[FrozenStudy]:
        """Those that are shown, in the order in which they were made."""
        studies = [study for study in self._storage.get_all_studies() if study.study_name in self._names]
        for study in studies:
            study.study_name = self._names[study.study_name]
            study.user_attrs = {}  # for planners to read
            study.system_attrs = {**study.system_attrs, **_OBJECTIVE}
        return sorted(studies, key=lambda study: study._study_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        """By the name that is shown."""
        return self._ids[study_name]

    def get_study_name_from_id(self, study_id: int) -> str:
        """The name that is shown."""
        return self._shown[study_id]

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As it is."""
        return self._storage.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """None: they are for planners."""
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """With a name for what is minimised."""
        return {**self._storage.get_study_system_attrs(study_id), **_OBJECTIVE}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """With its setting."""
        trial = self._storage.get_trial(trial_id)
        return _with_setting(trial, _distributions([trial], {}))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """With their settings."""
        trials = self._storage.get_all_trials(study_id, deepcopy=False)
        noted = self._storage.get_study_user_attrs(study_id).get(CONTENT, {})
        distributions = _distributions(trials, noted)
        return [_with_setting(trial, distributions) for trial in trials if states is None or trial.state in states]

    def create_new_study(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refused, as all that writes."""
        raise PermissionError("only to look at")

    create_new_trial = delete_study = create_new_study
    set_study_user_attr = set_study_system_attr = set_trial_param = set_trial_state_values = create_new_study
    set_trial_intermediate_value = set_trial_user_attr = set_trial_system_attr = create_new_study


def _distributions(trials: Sequence[FrozenTrial], noted: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Of the searched keys: the ranges that were noted, widened to what was tried, or the values that were."""
    tried: dict[str, list[Any]] = {}
    for trial in trials:
        for key, value in trial.user_attrs.get("params", {}).items():
            tried.setdefault(key, []).append(value)
    return {key: _distribution(values, noted.get(_SPACE + key)) for key, values in tried.items()}


def _distribution(values: Sequence[Any], noted: Any) -> BaseDistribution:
    if not all(type(value) in (int, float) for value in values):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    match noted:
        case [int() | float() as low, int() | float() as high, bool() as log]:
            values = [*values, low, high]
        case _:
            log = min(values) > 0
    return FloatDistribution(float(min(values)), float(max(values)), log=log and min(values) > 0)


def _with_setting(trial: FrozenTrial, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    said, shown = trial.user_attrs, copy.copy(trial)
    shown.params = dict(said.get("params", {}))
    shown.distributions = {key: distributions[key] for key in shown.params}
    shown.user_attrs = {key: said[key] for key in _SHOWN if key in said}
    return shown


# -- its server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadOnly:
    """A WSGI app that nothing is changed by, and that answers whoever asked for this machine only."""

    app: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and is_asked_for_here(environ.get("HTTP_HOST")):
            return self.app(environ, start)
        start("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"reason": "optsweep shows studies; it lets nobody change them"}']


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Nothing: the terminal has the address."""


def server_of(listening: socket.socket, app: WSGIApplication) -> WSGIServer:
    """A server of the app on a socket that listens already."""
    host, port = listening.getsockname()[:2]
    server = _Server((host, port), _Quiet, bind_and_activate=False)
    server.socket.close()
    server.socket, server.server_name, server.server_port = listening, host, port
    server.setup_environ()
    server.set_app(app)
    return server
