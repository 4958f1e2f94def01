"""What is wrong with a server is one line for every verb, exit code 2, without a password, and what to do."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from optsweep.cli import doorman
from servers.conftest import Servers
from servers.parts import USER
from sweeping import run

SWEEP = [
    *("task=digits_mlp", "optimizer=momentum", "schedule=cosine", "search=none", "optimizer.lr=0.1", "task.width=8"),
    *("confirm.seeds=1", "trainer.steps=10", "trainer.rungs=2", "hydra.launcher.workers=0"),
    "hydra.launcher.report=false",
]
READER = "hunter2"
Capture = pytest.CaptureFixture[str]


class Page(BaseHTTPRequestHandler):
    """A web server of another kind."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def kept_at(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The storage of a sweep `s`, whose runs are on the MLflow server."""
    storage = servers.postgres.make_database("of_s")
    run(tmp_path_factory.mktemp("s"), "-m", *SWEEP, "sweep.name=s", *servers.keys(storage))
    servers.postgres.execute(f"CREATE ROLE reader LOGIN PASSWORD '{READER}'")
    servers.postgres.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", "of_s")
    return storage


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Addresses of a server that isn't MLflow, by scheme; nobody knows who has signed its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*new, "-keyout", "key.pem", "-out", "own.pem"], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "key.pem")
    plain, tls = (ThreadingHTTPServer(("127.0.0.1", 0), Page) for _ in range(2))
    tls.socket = context.wrap_socket(tls.socket, server_side=True)
    for server in (plain, tls):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"http": f"127.0.0.1:{plain.server_port}", "https": f"127.0.0.1:{tls.server_port}"}
    for server in (plain, tls):
        server.shutdown()
        server.server_close()


def _verbs(storage: str, tracking_uri: str) -> Mapping[str, Sequence[str]]:
    """Commands that need both stores."""
    stores = ["--storage", storage, "--tracking-uri", tracking_uri]
    there = ["--to-storage", "sqlite:///there.db", "--to-tracking-uri", "sqlite:///runs.db"]
    return {
        "sweep": ["-m", *SWEEP, "sweep.name=s", f"tracking.storage='{storage}'", f"tracking.uri='{tracking_uri}'"],
        "work": ["work", "s", *stores],
        "watch": ["watch", "s", *stores],
        "ui": ["ui", "s", "--live", "--no-browser", *stores],
        "move": ["move", "s", *stores, *there],
        "retry": ["retry", "s", *stores],
        "sync": ["sync", "s", *stores],
    }


def _of_studies(storage: str) -> Mapping[str, Sequence[str]]:
    return {"status": ["status", "s", "--storage", storage], "list": ["list", "sweeps", "--storage", storage]}


def _of_runs(tracking_uri: str) -> Mapping[str, Sequence[str]]:
    report = ["report", "s", "--tracking-uri", tracking_uri]
    return {"report": report, "ui": ["ui", "s", "--no-browser", "--tracking-uri", tracking_uri]}


def _lines(commands: Mapping[str, Sequence[str]], capture: Capture) -> Mapping[str, str]:
    """What each says, which is one line."""
    found = {}
    for verb, command in commands.items():
        code = doorman.run(list(command))
        said = capture.readouterr()
        assert (verb, code, said.err.count("\n")) == (verb, 2, 1), said.err
        assert not [secret for secret in ("s3cret", READER) if secret in said.err + said.out]
        found[verb] = said.err.strip()
    return found


STUDIES = [
    (
        "postgresql+psycopg://optsweep:hunter2@127.0.0.1:{port}/of_s",
        'password authentication failed for user "optsweep"',
    ),
    ("postgresql+psycopg://optsweep:s3cret%2F4@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist'),
    ("postgresql+psycopg://optsweep:s3cret%2F4@127.0.0.1:9/of_s", "Connection refused"),
    ("postgresql+psycopg://optsweep:s3cret%2F4@no.such.host.invalid/of_s", "failed to resolve host"),
    ("postgresql+psycopg2://optsweep:s3cret%2F4@127.0.0.1:{port}/of_s", "pip install 'optsweep[postgres]'"),
    ("mysql+pymysql://optsweep:s3cret%2F4@127.0.0.1:{port}/of_s", "its driver is missing (No module named 'pymysql')"),
]


@pytest.mark.parametrize(("wrong", "said"), STUDIES, ids=lambda text: text[-24:])
def test_of_the_studies(
    wrong: str,
    said: str,
    servers: Servers,
    kept_at: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = wrong.format(port=servers.postgres.port)
    commands = {**_verbs(storage, servers.mlflow.address), **_of_studies(storage)}
    for verb, line in _lines(commands, capsys).items():
        assert line.startswith("optsweep: tracking.storage: "), verb
        assert said in line, verb
    assert list(tmp_path.iterdir()) == []


def test_of_a_database_that_is_another_one(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Who looks makes nothing there."""
    monkeypatch.chdir(tmp_path)
    storage = servers.postgres.make_database("another")
    commands = {**_verbs(storage, servers.mlflow.address), **_of_studies(storage)}
    del commands["sweep"], commands["sync"]  # which doesn't need one
    for verb, line in _lines(commands, capsys).items():
        assert "there are no studies at postgresql+psycopg://optsweep:***@" in line, verb
    engine = create_engine(storage)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


RUNS = [
    (
        "http://ann:hunter2@127.0.0.1:9",
        "no MLflow server answers at http://127.0.0.1:9 ([Errno 111] Connection refused)",
    ),
    (  # with or without somebody who knows names
        "http://ann:hunter2@no.such.host.invalid:5000",
        "no MLflow server answers at http://no.such.host.invalid:5000 ([Errno -",
    ),
    ("http://ann:hunter2@{http}", "answers, and is no MLflow server"),
    ("https://ann:hunter2@{http}", "it speaks no TLS; give http://"),
    ("https://ann:hunter2@{https}", "its certificate isn't trusted here; MLFLOW_TRACKING_SERVER_CERT_PATH=FILE"),
    ("postgresql+psycopg://optsweep:hunter2@127.0.0.1:{port}/runs", "password authentication failed"),
]


@pytest.mark.parametrize(("wrong", "said"), RUNS, ids=lambda text: text[:40])
def test_of_the_runs(
    wrong: str,
    said: str,
    servers: Servers,
    kept_at: str,
    pages: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = wrong.format(port=servers.postgres.port, **pages)
    for verb, line in _lines({**_verbs(kept_at, uri), **_of_runs(uri)}, capsys).items():
        assert line.startswith("optsweep: tracking.uri: "), verb
        assert said in line, verb
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["v99.0.0", "v3.0.0.d"])
def test_studies_of_another_optuna(
    version: str, servers: Servers, kept_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (before,) = servers.postgres.execute("SELECT version_num FROM alembic_version", "of_s")[0]
    (schema,) = servers.postgres.execute("SELECT schema_version FROM version_info", "of_s")[0]
    other = 99 if version == "v99.0.0" else 11
    servers.postgres.execute(f"UPDATE version_info SET schema_version = {other}", "of_s")
    servers.postgres.execute(f"UPDATE alembic_version SET version_num = '{version}'", "of_s")
    try:
        lines = _lines({**_verbs(kept_at, servers.mlflow.address), **_of_studies(kept_at)}, capsys)
        with pytest.raises(SystemExit):
            doorman.run(["doctor", "--storage", kept_at, "--tracking-uri", servers.mlflow.address])
        assert f"Optuna's tables {version}" in capsys.readouterr().out
    finally:
        servers.postgres.execute(f"UPDATE version_info SET schema_version = {schema}", "of_s")
        servers.postgres.execute(f"UPDATE alembic_version SET version_num = '{before}'", "of_s")
    for verb, line in lines.items():
        assert "was written by another version of Optuna: `optuna storage upgrade" in line, verb


def test_the_other_store_s_database_is_refused(
    servers: Servers, kept_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Both keep their version in a table of one name."""
    monkeypatch.chdir(tmp_path)
    runs = servers.postgres.address("runs")
    for verb, line in _lines(_of_studies(runs), capsys).items():
        assert line.startswith("optsweep: tracking.storage: "), verb


def test_a_user_who_may_only_read(
    servers: Servers, kept_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = kept_at.replace(f"{USER}:s3cret%2F4", f"reader:{READER}")
    for verb, line in _lines({**_verbs(reader, servers.mlflow.address), **_of_studies(reader)}, capsys).items():
        assert "permission denied" in line, verb
