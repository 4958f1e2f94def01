"""The tables of a sweep's database: Optuna's, and ours beside them; and its clock, by which all that runs out does."""

from __future__ import annotations

from optuna.storages._rdb.models import (
    StudyDirectionModel,
    StudyModel,
    StudySystemAttributeModel,
    StudyUserAttributeModel,
    TrialHeartbeatModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from sqlalchemy import (
    Column,
    ColumnElement,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    cast,
    extract,
    func,
)
from sqlalchemy.schema import CreateTable

# -- Optuna's --------------------------------------------------------------------------------------------------------

STUDIES = StudyModel.__table__
DIRECTIONS = StudyDirectionModel.__table__
NOTES = StudyUserAttributeModel.__table__
STUDY_SYSTEM_ATTRIBUTES = StudySystemAttributeModel.__table__

TRIALS = TrialModel.__table__
PARAMS = TrialParamModel.__table__
VALUES = TrialValueModel.__table__
RUNGS = TrialIntermediateValueModel.__table__
USER_ATTRIBUTES = TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES = TrialSystemAttributeModel.__table__
HEARTBEATS = TrialHeartbeatModel.__table__

MOST_NAMED = 500
"""Trials that a statement names."""

# -- ours ------------------------------------------------------------------------------------------------------------

TABLES = MetaData()

LEASES = Table(
    "optsweep_leases",
    TABLES,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("worker", String(512)),  # NULL: nobody's
    Column("token", Integer, nullable=False),  # how often it changed hands
    Column("expires", Float(53)),  # seconds since 1970 on the database's clock
    Column("step", Integer, nullable=False),
)
"""Who has which trial (ownership.py)."""

SEATS = Table(
    "optsweep_seats",
    TABLES,
    Column("sweep", String(512), primary_key=True),
    Column("arm", String(512), primary_key=True),
    Column("holder", String(512)),  # NULL: nobody's
    Column("token", String(64)),
    Column("expires", Float(53)),
    Column("since", Float(53)),
)
"""Who plans which arm (seats.py)."""

HELPERS = Table(
    "optsweep_helpers",
    TABLES,
    Column("sweep", String(512), primary_key=True),
    Column("process", String(512), primary_key=True),  # whose workers these are
    Column("workers", Integer, nullable=False),
    Column("expires", Float(53), nullable=False),
)
"""Who helps from elsewhere (helping.py)."""

CURVES = Table(
    "optsweep_curves",
    TABLES,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("token", Integer, nullable=False),  # of the claim under which it was told: void with that
    Column("points", Text, nullable=False),  # JSON
)
"""Of trials in training (latest.py)."""


def create_tables(engine: Engine) -> None:
    """Make those of ours that are missing."""
    with engine.begin() as connection:
        for table in TABLES.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))


def clock(engine: Engine) -> ColumnElement[float]:
    """Seconds since 1970 on the database's clock, read when the statement runs."""
    if engine.dialect.name == "sqlite":
        return (func.julianday("now") - 2440587.5) * 86400.0
    return cast(extract("epoch", func.clock_timestamp()), Float(53))
