"""Threads that deliver what lies in the spool: one of the planner's process, and of each worker for its long trials."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from optsweep.terminal import complain
from optsweep.tracking import store
from optsweep.tracking.delivery import Delivery
from optsweep.tracking.outage import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PATIENCE_SECONDS,
    Outage,
    StoreFailureError,
    disk_outage,
    passes,
    patiently,
    tracking_outage,
)
from optsweep.tracking.postman import Postman, as_refused, until_it_stays
from optsweep.tracking.records import Record
from optsweep.tracking.spool import Spool, TrialFile, opened

ABANDONED_SECONDS = 5.0
"""Between two looks for files that nobody writes any more."""

RUNNING_SECONDS = 10.0
"""Between two deliveries of a trial that runs."""

LOOK_SECONDS = 0.01
"""Between two looks whether a trial has been delivered, where that is waited for."""

CLOSING_SECONDS = 2.0
"""What a courier may take at its end; what it doesn't get done another one does."""


class Letter:
    """A trial's records on their way through the spool: what is written is delivered by the courier."""

    def __init__(self, courier: Courier, trial: str, file: TrialFile, disk: Outage) -> None:
        self.trial, self.file = trial, file
        self.delivery: Delivery | None = None  # None: nothing of it was sent
        self.offset = 0
        self.sent = time.monotonic()
        self._courier, self._disk = courier, disk

    def add(self, *records: Record) -> None:
        """Keep records for the next write."""
        self.file.add(*records)

    def write(self) -> None:
        """Write what was kept; on a full disk it stays in memory. Of a letter that is anybody's nothing follows."""
        if self.file.is_over:
            return
        if self.is_due():
            self._courier.prepare()
        try:
            self.file.write()
        except OSError as error:
            self._disk.failed(error)
        else:
            self._disk.worked()

    def secure(self) -> None:
        """Write what was kept to the disk, and wait for that. Raises StoreFailureError."""
        try:
            patiently(lambda: self.file.write(durable=True), self._disk)
            self._courier.secured(self)
        except OSError as error:
            reason = f"{self.file.path.parent} can't be written ({error.strerror})"
            self._disk.say(reason)  # a worker's planner knows only that a store failed
            raise StoreFailureError(reason) from error

    def close(self) -> None:
        """Nothing more comes."""
        self._courier.take_over(self)

    def is_due(self) -> bool:
        """Whether it is time to send what is new of a trial that goes on: a short one is sent whole, when it ends."""
        return time.monotonic() - self.sent >= RUNNING_SECONDS


class Courier:
    """A thread that delivers what trials of this process write, and every `seconds` files that nobody writes any more.

    With `leaves` another process does the latter, trials of this one that have ended among them: then only those that
    run for long are delivered here, and a process whose trials are short never imports MLflow.

    With `registers` a trial is in the store before it counts as written: nobody who plans could deliver it from here.

    A store that fails is tried again for as long as the process lives. Use `close`, or what waits is left to others.
    """

    def __init__(
        self,
        spool: Spool,
        say: Callable[[str], None] = complain,
        *,
        seconds: float = ABANDONED_SECONDS,
        leaves: bool = False,
        registers: bool = False,
        start: bool = True,
    ) -> None:
        self._postman = Postman(spool)
        self._spool, self._say = spool, say
        self._seconds, self._leaves, self._ready = seconds, leaves, not leaves
        self._registers = registers
        self._outage = tracking_outage(spool.tracking_uri, spool.folder, training=True)
        self._disk = disk_outage(spool.folder)
        self._outage.say = self._disk.say = say
        self.letters: list[Letter] = []  # that are being written, or partly delivered
        self._closed: deque[str] = deque()  # trials of this process that nothing was sent of
        self._ending: set[Letter] = set()
        self._busy: Letter | None = None
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._stopping = False
        self._refused: set[str] = set()  # trials
        self._looked = 0.0
        self._thread = threading.Thread(target=self._run, name="optsweep courier", daemon=True)
        if start:
            self._thread.start()

    def open(self, trial: str) -> Letter:
        """A letter for a trial that begins."""
        letter = Letter(self, trial, self._spool.open(trial), self._disk)
        with self._lock:
            self.letters.append(letter)
        return letter

    def prepare(self) -> None:
        """Import what is needed, in the thread that calls: at a rung, before any trial's next draw."""
        if not self._ready:
            store.preload()
            self._ready = True
            self.wake()

    def wake(self) -> None:
        """There is something to deliver."""
        self._news.set()

    def take_over(self, letter: Letter) -> None:
        """Nothing more comes for a letter: one of which nothing was sent is anybody's from now on."""
        with self._lock:
            if letter not in self.letters:
                return
            if letter.delivery is None and letter is not self._busy:
                self.letters.remove(letter)
                letter.file.close()
                self._leave(letter.trial)
            else:
                self._ending.add(letter)
        self.wake()

    def secured(self, letter: Letter) -> None:
        """A trial's end is on the disk; where that isn't enough, wait for the store. Raises StoreFailureError."""
        if not self._registers:
            return
        self.take_over(letter)
        until = time.monotonic() + PATIENCE_SECONDS
        while self._spool.path(letter.trial) is not None and letter.trial not in self._refused:
            if time.monotonic() > until:
                raise StoreFailureError(self._outage.reason or "the tracking store takes nothing")
            time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """Deliver what is there, within moments, and stop."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(CLOSING_SECONDS)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping:
            self._news.clear()
            if self.once():
                pause = FIRST_PAUSE
                self._news.wait(self._seconds)
            else:
                self._rest(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        self.once()
        self._ending.update(self.letters)
        self._let_go()
        self._outage.give_up()

    def once(self) -> bool:
        """Deliver what there is to deliver now; false where the store fails."""
        try:
            self._round()
        except Exception as error:  # of the store: what concerns one trial only was told
            self._outage.failed(error)
            self._let_go()
            return False
        if self._outage.reason:
            self._outage.worked()
        return True

    def _rest(self, seconds: float) -> None:
        """Wait, whatever is written meanwhile, unless it is time to stop."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._news.wait(left)
            self._news.clear()
            time.sleep(0.05)

    def _round(self) -> None:
        for letter in list(self.letters):
            if letter in self._ending or (self._ready and letter.is_due()):
                self._of_one(letter.trial, partial(self._bring, letter))
        while self._closed:
            trial = self._closed[0]
            self._of_one(trial, partial(self._postman.deliver, trial))
            self._closed.popleft()
        now = time.monotonic()
        if not self._leaves and (now - self._looked >= self._seconds or self._stopping):
            own = {letter.trial for letter in self.letters} | self._refused
            others = [trial for trial in self._spool.trials() if trial not in own]
            for trial in self._postman.deliver_together(others):
                self._of_one(trial, partial(self._postman.deliver, trial))
            self._looked = now

    def _of_one(self, trial: str, send: Callable[[], object]) -> None:
        """Send a trial; one that the store refuses stays, and the others go on."""
        if trial in self._refused:
            return
        try:
            send()
        except Exception as error:
            if passes(error):
                raise
            self._refused.add(trial)
            self._say(as_refused(trial, error))

    def _bring(self, letter: Letter) -> None:
        """Deliver what is new of a letter; remove it when nothing more comes."""
        with self._lock:
            if letter not in self.letters or not letter.file.is_there:
                return
            self._busy = letter
        try:
            until_it_stays(lambda: self._send(letter), lambda: self._begin_anew(letter))
        finally:
            with self._lock:
                self._busy = None

    def _send(self, letter: Letter) -> None:
        over = letter in self._ending  # before the file is read: nothing follows then
        records, end = letter.file.read(letter.offset)
        if letter.delivery is None:
            begun = opened(records)
            if begun is None or not self._postman.may_go(begun):
                return
            delivery = Delivery(self._postman.tracker, begun=letter.file.begun)
            letter.file.begin()
            letter.delivery = delivery
        letter.delivery.bring(records)
        letter.offset, letter.sent = end, time.monotonic()
        if over:
            letter.file.remove()
            self._drop(letter)

    def _begin_anew(self, letter: Letter) -> None:
        self._postman.anew()
        letter.delivery, letter.offset = None, 0

    def _let_go(self) -> None:
        """Leave what was written whole to whoever is there, so that no lock is held for nothing."""
        for letter in [letter for letter in self.letters if letter in self._ending]:
            self._drop(letter)
            if not self._stopping:
                self._leave(letter.trial)

    def _leave(self, trial: str) -> None:
        """The file of a trial is anybody's."""
        if not self._leaves:
            self._closed.append(trial)

    def _drop(self, letter: Letter) -> None:
        with self._lock:
            letter.file.close()
            self.letters.remove(letter)
            self._ending.discard(letter)
