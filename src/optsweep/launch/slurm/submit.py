"""Jobs are handed to SLURM by submitit, which keeps what each of them does in a file beside its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from optsweep.config.arm import Arm
from optsweep.errors import UserError, first_line
from optsweep.launch.slurm.job import PlannerTask, SlurmTask, WorkerTask
from optsweep.launch.slurm.record import SlurmJob, Submitted
from optsweep.launch.slurm.request import SlurmRequest


@dataclass(frozen=True)
class Submission:
    """What the jobs of a sweep need to know."""

    arm: Arm  # any of them
    arguments: tuple[str, ...]  # of the sweep's command
    command: str  # the same, without passwords
    request: SlurmRequest
    folder: Path

    def planner(self, name: str = "") -> Submitted:
        """Submit the job that plans; under the name of one that was lost, whose workers then belong to it."""
        arm, name = self.arm, name or uuid4().hex[:12]
        task = PlannerTask(self.folder, name, arm.sweep, arm.storage, self.request.requeue, self.arguments)
        (job,) = self._submit("plans", [task])
        record = Submitted(self.command, job)
        record.write(self.folder)
        return record

    def workers(self, record: Submitted, count: int) -> Submitted:
        """Submit so many workers, which begin once the planner has; they wait for what it posts."""
        if count <= 0:
            record.write(self.folder)
            return record
        arm, processes = self.arm, self.request.processes(self.arm.trainer.threads * self.arm.trainer.ranks)
        first = WorkerTask(
            self.folder, "", arm.sweep, arm.storage, self.request.requeue, arm.tracking_uri, record.planner, processes
        )
        tasks = [replace(first, name=uuid4().hex[:12]) for _ in range(count)]
        record = record.with_workers(self._submit("works", tasks, f"after:{record.planner.id}"))
        record.write(self.folder)
        return record

    def _submit(self, role: str, tasks: Sequence[SlurmTask], dependency: str = "") -> tuple[SlurmJob, ...]:
        """Hand them in, several as an array. Raises UserError where SLURM doesn't take them."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        request = self.request
        executor = SlurmExecutor(self.folder)
        executor.update_parameters(
            job_name=f"optsweep {self.arm.sweep} {role}",
            time=None,  # submitit's own is five minutes
            wckey=None,
            nodes=1,
            signal_delay_s=request.notice_seconds,
            stderr_to_stdout=True,
            setup=list(request.setup) or None,
            srun_args=[f"--cpus-per-task={request.cpus_per_worker}"],  # srun doesn't take it over from sbatch
            array_parallelism=request.max_parallel or len(tasks),
            additional_parameters={**request.flags, **({"dependency": dependency} if dependency else {})},
        )
        try:
            submitted = executor.submit_array(tasks)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise UserError(f"hydra/launcher=slurm: sbatch refuses the job that {role} ({first_line(error)})") from None
        return tuple(SlurmJob(str(job.job_id), task.name) for job, task in zip(submitted, tasks, strict=True))
