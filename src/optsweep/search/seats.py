"""Who plans: one process at a time holds the seat of an arm, for as long as it renews its lease."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, and_, exists, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from optsweep.errors import UserError
from optsweep.search.heartbeat import Heartbeat
from optsweep.search.helping import remember_lost
from optsweep.search.process import in_words, is_alive, process_name
from optsweep.search.tables import SEATS, clock

SEAT_SECONDS = 60.0
"""How long a planner may be out of touch before another one may go on with its sweep."""

WHOLE_SWEEP = ""
"""The seat of whoever plans all arms together. A stock launcher's job takes its own arm's only."""


class SeatLostError(UserError):
    """Another planner has taken over: this one must not write any more."""


class Seat:
    """The right to plan arms of a sweep. Within it the lease is renewed; leaving it gives the seat up."""

    def __init__(self, engine: Engine, sweep: str, arms: Sequence[str], token: str) -> None:
        self._engine, self._clock = engine, clock(engine)
        self.sweep, self.arms, self.token = sweep, sorted(arms), token
        self.lost = False  # as far as this process knows
        self._heartbeat = Heartbeat(self._beat)

    def renew(self, lease: float = SEAT_SECONDS) -> None:
        """Keep the seat for `lease` seconds from now. Raises SeatLostError if somebody else has it."""
        with self._engine.begin() as connection:
            for arm in self.arms:
                self._hold(connection, arm, lease)

    def check(self) -> None:
        """Raises SeatLostError if somebody else has the seat."""
        mine = select(func.count()).select_from(SEATS).where(SEATS.c.sweep == self.sweep, SEATS.c.token == self.token)
        with self._engine.connect() as connection:
            if connection.scalar(mine) != len(self.arms):
                raise self._lost(connection)

    @contextmanager
    def writing(self, arm: str) -> Iterator[Connection]:
        """A transaction of the arm's planner. Raises SeatLostError, and nothing is written, if that is another one."""
        with self._engine.begin() as connection:
            self._hold(connection, arm, SEAT_SECONDS)
            yield connection

    def release(self) -> None:
        """Give the seat up."""
        with self._engine.begin() as connection:
            for arm in self.arms:
                free = update(SEATS).where(self._mine(arm)).values(holder=None, token=None)
                connection.execute(free)

    def __enter__(self) -> Seat:
        self._heartbeat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._heartbeat.stop()
        with suppress(SQLAlchemyError):  # the lease ends by itself
            self.release()

    def _beat(self) -> None:
        with suppress(SeatLostError):  # which the planner finds at its next step
            self.renew()

    def _mine(self, arm: str) -> ColumnElement[bool]:
        return and_(SEATS.c.sweep == self.sweep, SEATS.c.arm == arm, SEATS.c.token == self.token)

    def _hold(self, connection: Connection, arm: str, lease: float) -> None:
        renewed = update(SEATS).where(self._mine(arm)).values(expires=self._clock + lease)
        if connection.execute(renewed).rowcount != 1:
            raise self._lost(connection)

    def _lost(self, connection: Connection) -> SeatLostError:
        self.lost = True
        where = (SEATS.c.sweep == self.sweep, SEATS.c.arm.in_(self.arms), SEATS.c.holder.is_not(None))
        holders = connection.scalars(select(SEATS.c.holder).where(*where).order_by(SEATS.c.since.desc())).all()
        taken = [holder for holder in holders if holder != process_name()]
        by = f"{in_words(taken[0])} has taken the sweep over" if taken else "it was given up"
        return SeatLostError(
            f"sweep.name={self.sweep}: this planner was out of touch for more than {SEAT_SECONDS:.0f} s, and {by}; "
            f"it stops here"
        )


def take_seat(engine: Engine, sweep: str, arms: Sequence[str]) -> Seat:
    """The seats of all these arms, or none. Raises UserError that says who has one of them.

    A seat is free if nobody has it, if its lease has run out, or if its holder is a process of this host that is dead.
    """
    seat = Seat(engine, sweep, arms, uuid.uuid4().hex)
    _ensure_rows(engine, sweep, seat.arms)
    silent = _silent(engine, seat)
    with engine.begin() as connection:
        for arm in seat.arms:  # in one order for all, so that no two wait for each other
            _take(connection, seat, arm)
    with suppress(IntegrityError), engine.begin() as connection:  # who took another of their seats noted them just now
        remember_lost(connection, sweep, silent)
    return seat


def planners(connection: Connection, sweep: str) -> list[tuple[str, float]]:
    """The processes that hold seats of a sweep, and for how many seconds yet; below 0: its lease has run out."""
    left = func.max(SEATS.c.expires - clock(connection.engine))
    held = (SEATS.c.sweep == sweep, SEATS.c.holder.is_not(None))
    rows = connection.execute(select(SEATS.c.holder, left).where(*held).group_by(SEATS.c.holder))
    return [(holder, float(seconds)) for holder, seconds in rows]


def _silent(engine: Engine, seat: Seat) -> Mapping[str, float]:
    """Who holds seats whose lease has run out, and can't be seen from here, with when that was."""
    now = clock(engine)
    mine = (SEATS.c.sweep == seat.sweep, SEATS.c.arm.in_(seat.arms), SEATS.c.holder.is_not(None))
    with engine.connect() as connection:
        found = connection.execute(select(SEATS.c.holder, SEATS.c.expires).where(*mine, SEATS.c.expires < now))
        return {holder: expires for holder, expires in found if is_alive(holder) is None}


def _ensure_rows(engine: Engine, sweep: str, arms: Sequence[str]) -> None:
    """A row per seat, so that taking one is an UPDATE."""
    for arm in arms:
        known = exists().where(SEATS.c.sweep == sweep, SEATS.c.arm == arm)
        row = select(literal(sweep), literal(arm)).where(~known)
        with suppress(IntegrityError), engine.begin() as connection:  # another process made it
            connection.execute(insert(SEATS).from_select(["sweep", "arm"], row))


def _take(connection: Connection, seat: Seat, arm: str) -> None:
    """Take one arm's seat. Raises UserError, which rolls all of them back."""
    now = clock(connection.engine)
    row = and_(SEATS.c.sweep == seat.sweep, SEATS.c.arm == arm)
    mine = {"holder": process_name(), "token": seat.token, "expires": now + SEAT_SECONDS, "since": now}
    free = or_(SEATS.c.holder.is_(None), SEATS.c.expires < now)
    if connection.execute(update(SEATS).where(row, free).values(mine)).rowcount == 1:
        return
    columns = (SEATS.c.holder, SEATS.c.token, SEATS.c.since, (SEATS.c.expires - now).label("left"))
    other = connection.execute(select(*columns).where(row)).one()
    if other.holder is not None and is_alive(other.holder) is False:
        dead = and_(row, SEATS.c.token == other.token)
        if connection.execute(update(SEATS).where(dead).values(mine)).rowcount == 1:
            return
    who = in_words(other.holder) if other.holder is not None else "another process"
    since = f" since {datetime.fromtimestamp(other.since):%Y-%m-%d %H:%M:%S}" if other.since is not None else ""
    left = max(0, round(other.left)) if other.left is not None else 0
    raise UserError(
        f"sweep.name={seat.sweep}: {who} has been running this sweep{since}; wait for it, or stop it "
        f"(if it is gone, the same command goes on when its lease has run out, in {left} s)"
    )
