"""What a sweep's planner writes to MLflow: the runs of the sweep and its arms, and what becomes of lost trials."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optsweep.address import TRACKING_KEY, read_address
from optsweep.errors import UserError
from optsweep.tracking import names
from optsweep.tracking.codec import UnreadableError
from optsweep.tracking.heads import RunHead, run_heads
from optsweep.tracking.names import Status
from optsweep.tracking.schema import SCHEMA_VERSION, ArmSheet, Chosen, Session, SweepSheet, Timing, TrialEnd, TrialHead
from optsweep.tracking.sheets import Sheet, read_sheet, write_sheet
from optsweep.tracking.source import source_tags
from optsweep.tracking.store import client, runs
from optsweep.tracking.tables import ARTIFACTS
from optsweep.tracking.whole import Database, WholeRun
from optsweep.train.trial import Phase

if TYPE_CHECKING:
    from mlflow.entities import Run, RunInfo

METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
TAG_CHARACTERS = 7_900
DIGEST_CHARACTERS = 36
"""Of a data set's digest in MLflow; a longer one is hashed."""


class Tracker:
    """One sweep's experiment. Only the sweep's planner writes sheets."""

    def __init__(self, uri: str, sweep: str) -> None:
        self.uri, self.sweep = uri, sweep
        self.client = client(uri)
        self.experiment_id = self._experiment()
        address = read_address(TRACKING_KEY, self.client.tracking_uri)
        self._database = None if address.is_server else Database(address)
        self._found: dict[str, dict[str, str]] = {}
        self._infos: dict[str, RunInfo] = {}

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.sweep)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None
        if (file := read_address(TRACKING_KEY, self.uri).file) is not None:
            folder = hashlib.sha256(self.sweep.encode()).hexdigest()[:12]
            location = (file.resolve().parent / ARTIFACTS / folder).as_uri()
        tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI's pages for training, not for agents
        return str(self.client.create_experiment(self.sweep, artifact_location=location, tags=tags))

    # -- runs of the planner ---------------------------------------------------------------------------------------

    def sweep_run(self) -> str:
        """The run of kind `sweep`, found or created."""
        return self._run("sweep", "", f"sweep {self.sweep}")

    def arm_run(self, arm: str, label: str) -> str:
        """The parent run of an arm, found or created."""
        return self._run("arm", arm, label)

    def parent_run(self, arm: str, label: str) -> str:
        """The parent run of an arm's trial. Made where it is gone: a trial without one isn't found among its arm's."""
        if arm not in self._runs("arm"):
            self._found.pop("arm")  # another process may have made it since
        return self.arm_run(arm, label)

    def _run(self, kind: str, arm: str, name: str) -> str:
        known = self._runs(kind)
        if arm not in known:
            own = {names.KIND: kind, names.SCHEMA: str(SCHEMA_VERSION), **({names.ARM: arm} if arm else {})}
            run = self.client.create_run(self.experiment_id, tags={**own, **source_tags()}, run_name=name)
            known[arm] = str(run.info.run_id)
        return known[arm]

    def _runs(self, kind: str) -> dict[str, str]:
        """Run ids by arm; the oldest, where two processes created an arm's at the same time."""
        if kind not in self._found:
            found = runs(self.client, self.experiment_id, f"tags.`{names.KIND}` = '{kind}'")
            own = [run for run in reversed(found) if run.data.tags.get(names.PHASE) != names.SET_ASIDE]
            self._found[kind] = {names.tag(run.data.tags, names.ARM) or "": str(run.info.run_id) for run in own}
        return self._found[kind]

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, text[:TAG_CHARACTERS]) for key, text in tags.items()])

    def set_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log params that are not there yet; MLflow refuses to change one."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        fresh = [Param(key, str(value)[:6000]) for key, value in params.items() if key not in known]
        for i in range(0, len(fresh), PARAMS_PER_CALL):
            self.client.log_batch(run_id, params=fresh[i : i + PARAMS_PER_CALL])

    def log_points(self, run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Log (key, value, timestamp in milliseconds, step)."""
        from mlflow.entities import Metric

        for i in range(0, len(points), METRICS_PER_CALL):
            self.client.log_batch(run_id, metrics=[Metric(*point) for point in points[i : i + METRICS_PER_CALL]])

    def set_dataset(self, run_id: str, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Log the data that an arm trains on as an MLflow data set."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.exceptions import MlflowException

        inputs = self.client.get_run(run_id).inputs
        if inputs is not None and inputs.dataset_inputs:
            return
        dataset = Dataset(
            name=name,
            digest=digest if len(digest) <= DIGEST_CHARACTERS else hashlib.sha256(digest.encode()).hexdigest()[:16],
            source_type="code",
            source=json.dumps({"tags": {"origin": source}}),
            profile=json.dumps(profile),
        )
        given = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        try:
            self.client.log_inputs(run_id, given)
        except MlflowException:  # another process, of the same data, may have made its row at this moment
            self.client.log_inputs(run_id, given)

    def log_text(self, run_id: str, text: str, file: str) -> None:
        """Attach a text file."""
        self.client.log_text(run_id, text, file)

    def end(self, run_id: str, failed: bool = False) -> None:
        """Close a run of the planner."""
        self.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    # -- all runs --------------------------------------------------------------------------------------------------

    def every_run(self) -> list[RunHead]:
        """All runs of the sweep, deleted ones included and those set aside not, oldest first, by one query."""
        found = run_heads(self.client, read_address(TRACKING_KEY, self.uri), self.experiment_id)
        return [run for run in found if run.tags.get(names.PHASE) != names.SET_ASIDE]

    def set_aside(self, run: RunHead, reason: str) -> None:
        """Take a run out of all results; it is kept, and says why."""
        if run.is_open:
            self.end(run.run_id, failed=True)
        ended = TrialEnd(Status.CRASHED).tags() if run.tags.get(names.STATUS) == Status.RUNNING else {}
        self.set_tags(run.run_id, {names.PHASE: names.SET_ASIDE, names.ERROR: reason, **ended})
        self._found.clear()

    def close(self, run_id: str, reason: str) -> None:
        """Close a trial's run that was left open, as crashed."""
        self.set_tags(run_id, TrialEnd(Status.CRASHED, reason).tags())
        self.end(run_id, failed=True)

    def restore(self, run: RunHead) -> None:
        """Bring back a run that somebody deleted."""
        self.client.restore_run(run.run_id)
        self._found.clear()

    # -- sheets ----------------------------------------------------------------------------------------------------

    def sweep_sheet(self, run_id: str) -> SweepSheet | None:
        """The sweep's sheet; None before it is described. Raises UserError."""
        return self._sheet(run_id, SweepSheet)

    def arm_sheet(self, run_id: str) -> ArmSheet | None:
        """An arm's sheet; None before it is described. Raises UserError."""
        return self._sheet(run_id, ArmSheet)

    def write_sheet(self, run_id: str, sheet: SweepSheet | ArmSheet) -> None:
        """Replace the sheet of the sweep's or an arm's run."""
        write_sheet(self.client, self._info(run_id), sheet)

    def note_chosen(self, run_id: str, chosen: Chosen | None, repeat: int = 0) -> None:
        """Write the setting that a search of an arm ended on."""
        sheet = self.arm_sheet(run_id)
        if sheet is None:
            return
        held = [sheet.chosen, *sheet.chosen_again]
        held += [None] * (repeat + 1 - len(held))
        if held[repeat] != chosen:
            held[repeat] = chosen
            self.write_sheet(run_id, replace(sheet, chosen=held[0], chosen_again=tuple(held[1:])))

    def note_timing(self, run_id: str, timing: Timing) -> None:
        """Write what the timing pass found for an arm."""
        if (sheet := self.arm_sheet(run_id)) is not None:
            self.write_sheet(run_id, replace(sheet, timing=timing))

    def note_session(self, run_id: str, session: Session) -> None:
        """Add a call to the sweep's sessions."""
        if (sheet := self.sweep_sheet(run_id)) is not None:
            self.write_sheet(run_id, replace(sheet, sessions=(*sheet.sessions, session)))

    def note_report(self, run_id: str, results: str) -> None:
        """Write which results the sweep's report is of."""
        if (sheet := self.sweep_sheet(run_id)) is not None:
            self.write_sheet(run_id, replace(sheet, reported=results))

    def _sheet(self, run_id: str, kind: type[Sheet]) -> Sheet | None:
        try:
            return read_sheet(self.client, self._info(run_id), kind)
        except UnreadableError as error:
            raise UserError(f"tracking.uri: sweep {self.sweep} has a run {run_id} with a broken {error}") from None

    def _info(self, run_id: str) -> RunInfo:
        if run_id not in self._infos:
            self._infos[run_id] = self.client.get_run(run_id).info
        return self._infos[run_id]

    # -- trials ----------------------------------------------------------------------------------------------------

    @property
    def has_database(self) -> bool:
        """Whether whole runs can be made at once."""
        return self._database is not None

    def add_whole(self, runs: Sequence[WholeRun]) -> list[str]:
        """Make runs with all that is in them at once; returns their ids. None where that takes the client's calls."""
        return [] if self._database is None else self._database.add(self.experiment_id, runs)

    def trials(self, arm: str, phase: Phase | None = None, slot: int | None = None) -> list[Run]:
        """Runs of an arm's trials, oldest first; superseded ones only where no phase is asked for."""
        parent = self._runs("arm").get(arm)
        if parent is None:
            return []
        tags = {names.PARENT: parent, names.KIND: "trial"}
        tags |= {} if phase is None else {names.PHASE: phase.value}
        conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        if slot is not None:
            conditions.append(f"params.slot = '{slot}'")
        return runs(self.client, self.experiment_id, " and ".join(conditions))

    def lost_trials(
        self,
        arm: str,
        phase: Phase,
        slot: int,
        reason: str,
        repeat: int = 0,
        but: Container[str] = (),
        before: float = math.inf,
    ) -> None:
        """Mark what attempts at a slot left as crashed: no study was told of it, whatever it ended with.

        Runs of trials in `but` are left as they are, and those that began later than `before` (in milliseconds).
        """
        for run in self.trials(arm, phase, slot):
            tags, started = run.data.tags, run.info.start_time or 0
            lost = tags.get(names.STATUS) != Status.CRASHED and names.tag(tags, names.TRIAL) not in but
            if lost and started <= before and _repeat(run) == repeat:
                self.close(str(run.info.run_id), reason)

    def supersede(self, arm: str, slots: Sequence[int], repeat: int = 0) -> None:
        """Take confirm trials at these slots, and no others, out of the phase: their setting is not the chosen one."""
        for run in self.trials(arm):
            phase = run.data.tags.get(names.PHASE)
            if phase in (Phase.CONFIRM.value, names.SUPERSEDED) and _repeat(run) == repeat:
                slot = TrialHead.of(run.data.tags, run.data.params).slot
                wanted = names.SUPERSEDED if slot in slots else Phase.CONFIRM.value
                if wanted != phase:
                    self.set_tags(str(run.info.run_id), {names.PHASE: wanted})


def _repeat(run: Run) -> int:
    return TrialHead.of(run.data.tags, run.data.params).repeat
