"""Whether the two stores can be opened, and of which version they are. Looks only: one that isn't there isn't made."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, func, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from optsweep.address import STORAGE_KEY, TRACKING_KEY, Address, read_address
from optsweep.errors import UserError, first_line, without_secrets
from optsweep.launch.doctor.diagnosis import Diagnosis, Health
from optsweep.search.storage import UPGRADE
from optsweep.search.tables import STUDIES
from optsweep.tracking.store import ask, check_usable

VERSION = "alembic_version"
"""The table in which both MLflow and Optuna keep the version of theirs."""

CURRENT, NEWER = "as here", "newer than what is installed here"
OLDER_MLFLOW, OLDER_OPTUNA = "older: the next sweep adds to it", f"older: {UPGRADE} brings it up to this version"


def examine_tracking(uri: str) -> Diagnosis:
    """MLflow's store."""
    try:
        address = read_address(TRACKING_KEY, uri)
        if not address.is_there:
            return _absent(TRACKING_KEY, address)
        check_usable(address)
        if address.is_server:
            return Diagnosis(Health.OK, TRACKING_KEY, f"{address.shown} answers, MLflow {_server_version(address)}")
        return _of_database(address, *_mlflow_revisions(), "MLflow's tables", OLDER_MLFLOW)
    except UserError as error:
        return Diagnosis(Health.FAIL, TRACKING_KEY, str(error).removeprefix(f"{TRACKING_KEY}: "))


def examine_storage(url: str) -> Diagnosis:
    """Optuna's storage."""
    try:
        address = read_address(STORAGE_KEY, url)
        if not address.is_there:
            return _absent(STORAGE_KEY, address)
        check_usable(address)
        return _of_database(address, *_optuna_revisions(), "Optuna's tables", OLDER_OPTUNA, count=True)
    except UserError as error:
        return Diagnosis(Health.FAIL, STORAGE_KEY, str(error).removeprefix(f"{STORAGE_KEY}: "))


def _absent(key: str, address: Address) -> Diagnosis:
    address.check_usable()
    return Diagnosis(Health.OK, key, f"{address.shown}: none yet, the first sweep makes it")


def _of_database(
    address: Address, head: str, known: list[str], whose: str, older: str, *, count: bool = False
) -> Diagnosis:
    """The version of the tables in a database, held against what the installed package knows."""
    engine = create_engine(address.text)
    try:
        with engine.connect() as connection:
            made = inspect(connection).has_table(VERSION)
            found = connection.execute(text(f"SELECT version_num FROM {VERSION}")).scalar() if made else None
            if found is None:
                return Diagnosis(Health.OK, address.key, f"{address.shown}: no tables yet, the first sweep makes them")
            studies = connection.execute(select(func.count()).select_from(STUDIES)).scalar() if count else None
    except SQLAlchemyError as error:
        said = without_secrets(first_line(error.__cause__ or error))[:200]
        return Diagnosis(Health.FAIL, address.key, f"{address.shown} can't be read: {said}")
    finally:
        engine.dispose()
    state = CURRENT if found == head else older if found in known else NEWER
    health = Health.FAIL if state in (NEWER, OLDER_OPTUNA) else Health.OK
    also = "" if studies is None else f", {studies:,} studies"
    return Diagnosis(health, address.key, f"{address.shown}: {whose} {found}, {state}{also}")


def _mlflow_revisions() -> tuple[str, list[str]]:
    """The version of the installed MLflow's tables, and all before."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    configured: Any = _get_alembic_config  # which has no types
    scripts = ScriptDirectory.from_config(configured(db_url=""))
    return str(scripts.get_heads()[0]), [script.revision for script in scripts.walk_revisions()]


def _optuna_revisions() -> tuple[str, list[str]]:
    """The same of Optuna's, which it tells of a storage only."""
    from optuna.storages import RDBStorage

    storage = RDBStorage("sqlite://", skip_compatibility_check=True)  # in memory
    try:
        return storage.get_head_version(), storage.get_all_versions()
    finally:
        storage.engine.dispose()


def _server_version(address: Address) -> str:
    """As the server tells it."""
    try:
        answer = ask(address, "/version")
    except OSError:
        return "of an unknown version"
    return answer.text[:100].strip().strip('"') if answer.ok else "of an unknown version"
