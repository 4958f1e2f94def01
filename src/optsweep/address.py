"""The address of a store, read once and in one way for whoever opens it: planner, workers, report, status.

Databases are written as SQLAlchemy has them, servers as URLs; what is secret in one never stands in `shown`.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from optsweep.errors import UserError, first_line, without_secrets

TRACKING_KEY, STORAGE_KEY = "tracking.uri", "tracking.storage"

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
"""Where runs go unless `tracking.uri` says it: MLflow's own variable."""

LOCAL_TRACKING = "sqlite:///mlruns/mlflow.db"

POSTGRES, POSTGRES_DRIVER = "postgresql", "postgresql+psycopg"
"""A scheme that leaves the driver open means the one that the extra `postgres` brings."""

_FORMS = "give sqlite:///PATH, postgresql+psycopg://… or http(s)://…"
_SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True)
class Address:
    """Where a store is. `text` is what opens it: of a server without who asks, who is told apart from it."""

    key: str  # of the config, for messages
    given: str = field(repr=False)  # as it was said
    text: str = field(repr=False)
    file: Path | None = None  # of an SQLite database
    is_server: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """As a person may see it: of a database server as it was said."""
        of_database = self.file is None and not self.is_server
        return without_secrets(self.given if of_database else self.text)

    @property
    def credentials(self) -> dict[str, str]:
        """Environment variables by which MLflow tells a server who asks."""
        said = {
            "MLFLOW_TRACKING_USERNAME": self.user,
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "MLFLOW_TRACKING_TOKEN": self.token,
        }
        return {name: value for name, value in said.items() if value}

    @property
    def is_there(self) -> bool:
        """Whether opening it makes nothing new, as far as that can be seen from here."""
        return self.file is None or (self.file.is_file() and self.file.stat().st_size > 0)

    @property
    def place(self) -> Path | str:
        """Equal for addresses of the same store."""
        return self.text if self.file is None else self.file.resolve()

    def at(self, file: Path) -> Address:
        """That of another file, or of this one as it is seen from elsewhere."""
        from sqlalchemy.engine import make_url

        text = make_url(self.text).set(database=str(file)).render_as_string(hide_password=False)
        return read_address(self.key, text)

    def check_usable(self) -> None:
        """Raise UserError where a database file can't be, or isn't one. Writes nothing."""
        if self.file is None:
            return
        if self.file.is_dir():
            raise UserError(f"{self.key}: {self.shown} is a folder; give the path of a file")
        if self.file.exists():
            try:
                beginning = _beginning(self.file)
            except OSError as error:
                raise UserError(f"{self.key}: {self.shown} can't be read ({error.strerror})") from None
            if beginning not in (b"", _SQLITE_MAGIC):
                raise UserError(f"{self.key}: {self.file} is no SQLite database")
            if not os.access(self.file, os.W_OK):
                raise UserError(f"{self.key}: {self.file} can't be written (Permission denied)")
            return
        folder = next(path for path in self.file.absolute().parents if path.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            reason = "Permission denied" if folder.is_dir() else "it is no folder"
            raise UserError(f"{self.key}: {self.shown} can't be written ({near(folder)}: {reason})")

    def make_file(self) -> None:
        """Make the file that is missing, and the folders to it: a new database is its owner's alone (0600)."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


_LOOKED_AT: dict[tuple[int, int], int] = {}
"""Descriptors of files by device and inode. They stay open: closing one would take SQLite's locks on its file away."""


def _beginning(file: Path) -> bytes:
    """What a database's file begins with."""
    found = file.stat()
    key = found.st_dev, found.st_ino
    if key not in _LOOKED_AT:
        _LOOKED_AT[key] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    return os.pread(_LOOKED_AT[key], len(_SQLITE_MAGIC), 0)


def read_address(key: str, text: str) -> Address:
    """Raises UserError that names the key and shows no password."""
    scheme, colon, _ = text.partition("://")
    if not colon or not re.fullmatch(r"[a-z][\w+.\-]*", scheme, re.IGNORECASE):
        raise UserError(f"{key}: {without_secrets(text)!r} is not allowed; {_FORMS}")
    if scheme in ("http", "https"):
        return _server(key, text)
    return _database(key, text, scheme)


def check_apart(storage: Address, runs: Address) -> None:
    """Raise UserError where both stores would be one: MLflow and Optuna note their versions in tables of one name."""
    if storage.place == runs.place:
        raise UserError(f"{storage.key}: {storage.shown} is {runs.key} as well; give each a database of its own")


def tracking_address() -> str:
    """Where runs go if nothing else is said. Raises UserError for a variable that is no address."""
    if not (said := os.environ.get(TRACKING_VARIABLE, "")):
        return LOCAL_TRACKING
    read_address(TRACKING_VARIABLE, said)
    return said


def _server(key: str, text: str) -> Address:
    wrong = UserError(
        f"{key}: {without_secrets(text)} is no server's address; give http(s)://HOST:PORT, or "
        f"http(s)://USER:PASSWORD@HOST:PORT with / @ : # ? of a password as %2F %40 %3A %23 %3F"
    )
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if not host or parts.query or parts.fragment or "?" in text or "#" in text or not re.fullmatch(r"[\w.:\-]+", host):
        raise wrong
    if "@" in parts.path or parts.netloc.count("@") > 1:
        raise wrong
    who, at, where = parts.netloc.rpartition("@")
    user, colon, password = who.partition(":")
    bare = f"{parts.scheme}://{where}{parts.path}".rstrip("/")
    if not at:
        return Address(key, text, bare, is_server=True)
    if not colon:
        return Address(key, text, bare, is_server=True, token=unquote(user))
    return Address(key, text, bare, is_server=True, user=unquote(user), password=unquote(password))


def _database(key: str, text: str, scheme: str) -> Address:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    shown = without_secrets(text)
    try:
        url = make_url(text)
        url.get_dialect()
    except (ArgumentError, ValueError):
        raise UserError(f"{key}: {shown!r} is not allowed; {_FORMS}") from None
    except NoSuchModuleError:
        raise UserError(f"{key}: {shown}: there is no such kind of database; {_FORMS}") from None
    if url.get_backend_name() != "sqlite":
        if "@" in (url.host or ""):
            raise UserError(f"{key}: {shown} has an @ in its password or host; an @ of a password is written %40")
        driven = f"{POSTGRES_DRIVER}{text[len(scheme) :]}" if scheme == POSTGRES else text
        return Address(key, text, driven)
    name = url.database or ""
    if name in ("", ":memory:") or "mode=memory" in text:
        raise UserError(f"{key}: {shown} is seen by one process only; give a file, as in sqlite:///mlruns/NAME.db")
    if url.host or url.username or name.startswith("file:") or "\0" in name:
        raise UserError(f"{key}: {shown} names no file; give sqlite:///PATH, or sqlite:////PATH from the root")
    query = text.partition("?")[2]
    plain = f"{scheme}:///{name}" + (f"?{query}" if query else "")  # MLflow takes %20 for a folder's name
    return Address(key, text, plain if make_url(plain).database == name else text, file=Path(name))


def without_driver(key: str, shown: str, error: BaseException) -> UserError:
    """What is said where the driver of a database isn't installed."""
    reason = "pip install 'optsweep[postgres]' brings that of postgresql+psycopg://"
    return UserError(f"{key}: {shown} can't be opened: its driver is missing ({error}); {reason}")


def refusal(error: BaseException) -> str:
    """Why a database can't be had: of a server that lets nobody in, what it said itself, which stands last."""
    from sqlalchemy.exc import DBAPIError

    own = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = [line.rpartition("FATAL:")[2].strip() for line in str(own).splitlines() if "FATAL:" in line]
    return without_secrets(said[0] if said else first_line(own))[:200]


def near(folder: Path) -> Path:
    """A path as it is seen from the working folder."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
