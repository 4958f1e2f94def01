"""An episode: a sweep in a folder of its own, disturbed, typed again until it ends, and judged."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from pathlib import Path
from random import Random
from typing import Protocol

from chaos.calls import Call, orphans
from chaos.compare import compare
from chaos.disturbances import Disturbance
from chaos.plan import Step
from chaos.scene import Scene
from chaos.stores import Found, counts, find
from chaos.surroundings import Disk, Server
from chaos.sweeps import Sweep
from chaos.tally import Tally, Violation

PATIENCE = 240.0
"""Seconds without a trial's end after which a command hangs."""

ORPHANS_END = 30.0
"""Seconds that a process may outlive its planner: it looks for it between two rungs."""

CALM_CALLS = 3
"""Calls without a disturbance in which a sweep must come to its end."""


class Plans(Protocol):
    """What befalls an episode."""

    most: int
    with_server: bool
    fresh: bool

    def opening(self, call: int) -> Step | None:
        """What befalls the n-th call at its start."""
        ...

    def step(self, number: int) -> Step:
        """The n-th disturbance of commands."""
        ...

    def between(self, call: int) -> tuple[Disturbance, Random] | None:
        """What befalls the folder after a call that did not end well."""
        ...

    def after(self, call: int) -> tuple[Disturbance, Random] | None:
        """What befalls the folder after a call that ended the sweep."""
        ...


class Around(Protocol):
    """What an episode has around it."""

    tally: Tally
    disk: Disk

    @property
    def spent(self) -> bool:
        """Whether nothing is to be disturbed any more."""
        ...

    def logs(self, name: str) -> Path:
        """Where the output of an episode's calls is kept."""
        ...

    def say(self, line: str) -> None:
        """Print a line of the log."""
        ...


class Episode:
    """One sweep, from an empty folder to its end."""

    def __init__(
        self,
        name: str,
        sweep: Sweep,
        plan: Plans,
        reference: Found,
        around: Around,
        empty_store: Path | None,
    ) -> None:
        self.name, self.plan, self.reference, self.around, self.tally = name, plan, reference, around, around.tally
        folder, logs = around.disk.at / name.replace("/", "_"), around.logs(name)
        for path in (folder, logs):
            path.mkdir(parents=True)
        if empty_store is not None:
            shutil.copytree(empty_store, folder / "mlruns")
        sweep.lay_out(folder)
        server = Server(folder) if plan.with_server else None
        self.scene = Scene(folder, logs, str(logs), sweep, len(reference.told), around.disk, server)
        self.steps = self.disturbances = 0
        self.last = "nothing"

    def run(self) -> None:
        """Run it; what came of it is in the tally."""
        if self.scene.server is not None:
            self.scene.server.start()
        try:
            self._until_the_end()
        finally:
            for call in self.scene.calls:
                call.signal_group(signal.SIGKILL)
            if self.scene.server is not None:
                self.scene.server.kill()
        for orphan in orphans(self.scene.mark, ORPHANS_END):
            self._violated("orphans", orphan)
        self.tally.episodes += 1
        if any(violation.episode == self.name for violation in self.tally.violations):
            shutil.copytree(self.scene.folder, self.scene.logs / "folder")
        shutil.rmtree(self.scene.folder, ignore_errors=True)

    def _until_the_end(self) -> None:
        calm = 0
        while calm < CALM_CALLS:
            call = self.scene.type()
            self._disturb()
            hung = self._wait()
            ended = [call.process.poll() == 0 for call in self.scene.calls if call.sweep == self.scene.sweep.name]
            calm = 0 if call.disturbed or hung else calm + 1
            self._judge()
            if any(ended):
                if not (self._compare() and self._damage(self.plan.after(self.scene.typed))):
                    return
                calm = 0
            elif self._damage(self.plan.between(self.scene.typed)):
                calm = 0
        self._violated("lost", f"{CALM_CALLS} undisturbed calls, and no end: {call.last_line[:200]}")

    def _disturb(self) -> None:
        """Disturb the command until it ends, or this episode's share is spent."""
        step = self.plan.opening(self.scene.typed)
        while not self._calm:
            if step is None:
                step, self.steps = self.plan.step(self.steps), self.steps + 1
            if not step.moment.wait(self.scene, step.rng) or (call := self.scene.call) is None:
                return
            if (fell_on := step.disturbance.do(self.scene, step.rng)) is not None:
                call.disturbed.append(step.disturbance.name)
                self._note(step.disturbance, fell_on)
            step = None

    @property
    def _calm(self) -> bool:
        """Whether nothing is to be disturbed any more."""
        return self.disturbances >= self.plan.most or self.around.spent

    def _damage(self, drawn: tuple[Disturbance, Random] | None) -> bool:
        """Damage the folder between two calls; whether there was anything to damage."""
        if drawn is None or self._calm:
            return False
        disturbance, rng = drawn
        fell_on = disturbance.do(self.scene, rng)
        if fell_on is not None:
            self._note(disturbance, fell_on)
        return fell_on is not None

    def _note(self, disturbance: Disturbance, fell_on: str) -> None:
        self.disturbances += 1
        self.last = disturbance.name
        self.tally.done[disturbance.name] += 1
        self.tally.fell_on[disturbance.name, fell_on] += 1
        self.tally.counted[disturbance.counts] += 1
        self.around.say(f"  {self.name} call {self.scene.typed}: {disturbance.name} ({fell_on})")

    def _wait(self) -> bool:
        """Wait until all commands have ended; those that hang are killed. Whether one did."""
        hung = False
        before = counts(self.scene.folder)
        while (call := self.scene.call) is not None:
            if call.wait(PATIENCE) is None:
                now = counts(self.scene.folder)
                if now == before:
                    hung = True
                    self._violated("hung", f"no trial ended for {PATIENCE:.0f} s")
                    call.signal_group(signal.SIGKILL)
                before = now
        return hung

    def _judge(self) -> None:
        """Look at how the calls ended."""
        for call in self.scene.calls:
            code = call.process.poll()
            line = f": {call.last_line[:160]}" if code not in (0, 130, -9, -15) else ""
            self.around.say(f"  {self.name} call {self.scene.typed}: exit {code} after {call.age:.0f} s{line}")
            self.tally.exits[f"exit {code}" if code is None or code >= 0 else signal.Signals(-code).name] += 1
            self.tally.calls += 1
            for fault in call.faults():
                self._violated("exit", fault)
        self.scene.calls.clear()

    def _compare(self) -> bool:
        """Hold what was found against the undisturbed sweep; whether all is well."""
        self.tally.compared += 1
        broken: dict[str, list[str]] = {}
        try:
            for kind, what in compare(find(self.scene.folder, self.scene.sweep.name), self.reference):
                broken.setdefault(kind, []).append(what)
        except sqlite3.Error as error:
            broken["lost"] = [f"exit 0, and a store can't be read: {error}"]
        for kind, held in broken.items():
            self._violated(kind, f"{len(held)}: {held[0]}" + (f"; … {held[-1]}" if len(held) > 1 else ""))
        return not broken

    def _violated(self, kind: str, what: str) -> None:
        self.tally.violations.append(Violation(kind, what, self.name, self.scene.typed, self.last))
        self.around.say(f"  {self.name} call {self.scene.typed}: VIOLATION, {kind}: {what}")


def undisturbed(sweep: Sweep, folder: Path) -> Found:
    """Run a sweep to its end in a new folder. Raises RuntimeError if it fails."""
    folder.mkdir(parents=True)
    sweep.lay_out(folder)
    call = Call(folder, sweep.name, sweep.command(), "undisturbed", folder / "call")
    if (code := call.process.wait()) != 0:
        raise RuntimeError(f"undisturbed, {sweep.kind}: exit {code}: {call.last_line}")
    return find(folder, sweep.name)
