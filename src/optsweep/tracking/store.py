"""Stores: opening one, finding a sweep in it, refusing what can't be used."""

from __future__ import annotations

import difflib
import os
import random
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsweep.address import TRACKING_KEY, Address, read_address, refusal, without_driver
from optsweep.database import alone, identity
from optsweep.errors import NotThereError, UserError, first_line, without_secrets
from optsweep.tracking import names
from optsweep.tracking.moved import settle
from optsweep.tracking.schema import SCHEMA_VERSION
from optsweep.tracking.tables import check_writable, disconnect, ensure_tables, holds_nothing

if TYPE_CHECKING:
    import requests
    from mlflow import MlflowClient
    from mlflow.entities import Run

# MLflow is set by its environment, which whoever starts this may set otherwise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # who asks again must know that it is again: outage.py

SERVER_TIMEOUT = 5.0
"""Seconds to wait for a tracking server's first answer."""

RUNS_PER_CALL = 1000


class SweepNotFound(ValueError):  # noqa: N818 – a mistake of the user, said in one line; nothing is broken
    """There is no such sweep in the store; the message names the nearest."""


def check(uri: str, *, create: bool = True) -> str | None:
    """Make sure that the store can be written, with its schema whole and its artifacts where it is.

    With `create` false a store that isn't there is an error. Returns what the user should know, in a line. Raises
    UserError with one line.
    """
    address = read_address(TRACKING_KEY, uri)
    if not create and address.file is not None and not address.file.is_file():
        raise NotThereError(
            f"tracking.uri: there is no store at {address.file}; run a sweep first, or name another one"
        )
    check_usable(address)
    if address.file is not None:
        return _check_file(address, address.file, create)
    if not address.is_server:
        _look(address)
    return None


def _check_file(address: Address, file: Path, create: bool) -> str | None:
    try:
        if not create and holds_nothing(file):
            raise NotThereError(f"tracking.uri: {file} was left half-made, without a run; run a sweep first")
        aside = ensure_tables(address)
        check_writable(file)
        with alone(file):
            settle(file)
            _look(address)  # MLflow adds the tables of a newer version
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"tracking.uri: {address.shown} can't be written ({error})") from None
    except UserError:
        raise
    except Exception as error:  # of a migration
        raise UserError(f"tracking.uri: {address.shown} can't be opened ({_first(error)})") from None
    return f"{file} was left half-made, without a run: it is {aside.name} now, and a new one is made" if aside else None


def check_usable(address: Address) -> None:
    """Raise UserError for a store that can't be one, as far as that can be known without writing to it."""
    address.check_usable()
    if address.is_server:
        _check_answers(address)
        _look(address)
    elif address.file is None:
        from sqlalchemy import NullPool, create_engine

        try:
            create_engine(address.text, poolclass=NullPool).connect().close()
        except ImportError as error:
            raise without_driver(address.key, address.shown, error) from None
        except Exception as error:  # nobody answers, the password is wrong, there is no such database
            raise UserError(f"{address.key}: {address.shown} can't be opened ({refusal(error)})") from None


def ask(address: Address, path: str) -> requests.Response:
    """What a server answers, whose certificate is looked at as MLflow's client does. Raises OSError and ValueError."""
    import requests

    trusted = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an unchecked certificate, which somebody wanted
        return requests.get(address.text + path, timeout=SERVER_TIMEOUT, verify=not insecure and trusted)


def _check_answers(address: Address) -> None:
    """Raise UserError where no MLflow server answers."""
    try:
        answer = ask(address, "/health")
    except ValueError as error:  # of requests too, for an address
        raise UserError(f"{address.key}: {address.shown} is no address ({_first(error)})") from None
    except OSError as error:
        said = _first(_innermost(error))
        if (meant := next((meant for text, meant in _TLS_MEANT if text in said), None)) is not None:
            raise UserError(f"{address.key}: {address.shown}: {meant}") from None
        raise UserError(f"{address.key}: no MLflow server answers at {address.shown} ({said})") from None
    if not answer.ok and answer.status_code not in (401, 403):
        said = f"{answer.status_code} {answer.reason}"
        raise UserError(f"{address.key}: {address.shown} answers, and is no MLflow server ({said})")


def _innermost(error: BaseException) -> BaseException:
    """What a library's error is about: the one that it came of."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


_TLS_MEANT = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate isn't trusted here; MLFLOW_TRACKING_SERVER_CERT_PATH=FILE names the one of its authority",
    ),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS; give http://…"),
)
"""What is said of a connection, and what that means to who reads it."""


def _look(address: Address) -> None:
    """Read something from the store, which makes the tables of a database."""
    try:
        client(address.given).search_experiments(max_results=1)
    except Exception as error:
        said = _first(error)
        unknown = f"can't be opened ({said})"
        known = next((meant for text, meant in _MEANT if text in said), None)
        raise UserError(f"{address.key}: {address.shown} {known or unknown}") from None


_PASSWORD = (
    "asks who you are, and takes no answer that it got: give http(s)://USER:PASSWORD@HOST:PORT, or set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
)
_MEANT = (
    ("error code 401", _PASSWORD),
    ("error code 403", _PASSWORD),
    ("not in a valid JSON format", "answers, and is no MLflow server"),
    (
        "out-of-date database schema",
        "was written by another version of MLflow: `mlflow db upgrade` brings an older one up to this version, and "
        "`pip install -U mlflow` reads a newer one (optsweep doctor says which)",
    ),
)
"""What MLflow says, and what that means to who reads it."""


def _first(error: BaseException) -> str:
    return without_secrets(first_line(error))[:200]


def client(uri: str) -> MlflowClient:
    """MLflow's client; imported here because the import takes seconds."""
    import logging

    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):  # MLflow logs the traceback of every error that it raises
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    address = read_address(TRACKING_KEY, uri)
    if address.is_server:
        _tell_who_asks(address.credentials)
    if address.file is not None:
        file = address.file.absolute()  # MLflow would keep the working folder of now
        address = address.at(file)
        _leave_deleted(address, file)
    return MlflowClient(tracking_uri=address.text, registry_uri=address.text)


_OPENED: dict[str, tuple[int, int] | None] = {}
"""The files behind addresses, when this process opened them last."""


def _leave_deleted(address: Address, file: Path) -> None:
    """Let go of a file that was deleted, or replaced, since: MLflow keeps its connections as long as the process."""
    before, now = _OPENED.get(address.text), identity(file)
    if before not in (None, now):
        disconnect(address.text, file)
    _OPENED[address.text] = now


_BEFORE: dict[str, str | None] = {}
"""The environment's variables that are replaced by a server's credentials, as they were."""


def _tell_who_asks(credentials: Mapping[str, str]) -> None:
    """Put these where MLflow looks whenever it asks, and take away those of the server before, who alone may know."""
    for name, value in _BEFORE.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    _BEFORE.clear()
    _BEFORE.update({name: os.environ.get(name) for name in credentials})
    os.environ.update(credentials)


_CLIENTS = ("mlflow", "urllib3", "requests", "sqlalchemy", "alembic")


def preload() -> None:
    """Make ready for a client in a thread beside one that trains: import what it needs, here and not there.

    Pauses between tries have random lengths. They get generators of their own, or they would draw from Python's global
    one, which trials set and whose draws tell whether a model is random.
    """
    import mlflow.store.tracking.rest_store
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.utils.request_utils  # noqa: F401

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _CLIENTS and vars(module).get("random") is random:
            vars(module)["random"] = random.Random()


def check_store(uri: str) -> None:
    """Refuse a local database that isn't there: opening it would create an empty one."""
    file = read_address(TRACKING_KEY, uri).file
    if file is not None and not file.is_file():
        raise SweepNotFound(f"tracking.uri: there is no store at {file}; run a sweep first, or name another store")


def find_experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment that holds sweep `name`. Raises SweepNotFound, which names the nearest."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "active":
        return str(experiment.experiment_id)
    if experiment is not None:
        raise SweepNotFound(
            f"sweep '{name}' was deleted; `mlflow experiments restore -x {experiment.experiment_id}` brings it back"
        )
    known = [found.name for found in pages(lambda token: client.search_experiments(page_token=token))]
    known = sorted(found for found in known if found != "Default")
    if not known:
        raise SweepNotFound(f"there is no sweep '{name}': the store is empty")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    listed = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(known[:8])}"
    raise SweepNotFound(f"there is no sweep '{name}'; {listed}")


def check_version(tags: Mapping[str, str], sweep: str) -> None:
    """Refuse a sweep whose sheets are of another version. Raises UserError."""
    found = names.tag(tags, names.SCHEMA)
    if found != str(SCHEMA_VERSION):
        newer = found is not None and found.isdigit() and int(found) > SCHEMA_VERSION
        raise UserError(
            f"tracking.uri: sweep {sweep} was written by {'a newer' if newer else 'an older'} version of optsweep; "
            f"give another sweep.name"
        )


def check_sweep(uri: str, sweep: str) -> None:
    """Refuse to go on with a sweep that another version began; one that isn't there may begin. Raises UserError."""
    opened = client(uri)
    experiment = opened.get_experiment_by_name(sweep)
    if experiment is not None:
        for run in runs(opened, experiment.experiment_id, f"tags.`{names.KIND}` = 'sweep'"):
            check_version(run.data.tags, sweep)


def runs(client: MlflowClient, experiment_id: str, condition: str = "", *, deleted: bool = False) -> list[Run]:
    """Runs of an experiment, oldest first; `deleted` ones, which can be restored, only where they are asked for.

    `condition` is MLflow's; it has no way to quote every text, so only what is chosen here may stand in it: words,
    numbers, ids.
    """
    from mlflow.entities import ViewType

    kind = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    found = pages(lambda token: client.search_runs([experiment_id], condition, kind, RUNS_PER_CALL, page_token=token))
    return sorted(found, key=lambda run: (run.info.start_time or 0, run.info.run_id))


def pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """The items of all pages."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return
