"""Hydra's own launchers and others': which of them a sweep can't rest on, and what they say where they fail.

Any launcher may be asked for: each arm is a job of its own then, searched by one process (docs/deploy/README.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig

from optsweep.address import STORAGE_KEY, TRACKING_KEY, read_address
from optsweep.config.arm import Arm
from optsweep.config.launchers import SECTION
from optsweep.errors import UserError, first_line

_REFUSED: Mapping[str, str] = {
    "hydra_plugins.hydra_ray_launcher.ray_aws_launcher.RayAWSLauncher": (
        "hydra/launcher=ray_aws: its jobs write to files of machines that it rents, and takes down with them; start a "
        "cluster with `ray up`, and give hydra/launcher=ray with its address"
    ),
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": (
        "hydra/launcher: hydra-ray-launcher can't join a cluster that runs, for it always gives object_store_memory, "
        "which Ray refuses there; give hydra/launcher=ray, which is optsweep's own, also without a cluster"
    ),
}
"""What is said of a launcher that loses trials, or can't do what it is there for, by its class."""

_PACKAGES = ("submitit", "joblib", "ray", "boto3", "botocore")
"""What the launchers of Hydra's own plugins stand on."""


_RULE = "-" * 20
"""How submitit sets off what it quotes, at least."""


def check_stock(target: str) -> None:
    """Raise UserError for a launcher that a sweep can't rest on, before anything is written."""
    if target in _REFUSED:
        raise UserError(_REFUSED[target])


def check_jobs(launcher: DictConfig, arms: Sequence[Arm]) -> None:
    """Raise UserError where jobs as they are asked for, one for each arm, would end badly. Nothing is written yet."""
    package, _, name = str(launcher.get("_target_")).rpartition(".")
    if package != "hydra_plugins.hydra_submitit_launcher.submitit_launcher":
        return
    for key in ("nodes", "tasks_per_node"):
        if (count := launcher.get(key)) != 1:
            raise UserError(f"{SECTION}.{key}: {count} isn't allowed; each arm is one job of one process, so it is 1")
    if name == "SlurmLauncher":
        _check_slurm(launcher, arms)


def _check_slurm(launcher: DictConfig, arms: Sequence[Arm]) -> None:
    from optsweep.launch.slurm import cluster

    cluster.check_usable("submitit_slurm")
    if (reason := cluster.why_no_accounts()) is not None:
        raise UserError(
            f"hydra/launcher=submitit_slurm: only sacct could tell it that a job was cancelled or lost, for which it "
            f"would wait for ever ({reason}); take hydra/launcher=slurm, which needs no accounting"
        )
    if len(arms) > 1 and launcher.array_parallelism > 1:
        stores = ((STORAGE_KEY, arms[0].storage), (TRACKING_KEY, arms[0].tracking_uri))
        asked = {"partition": launcher.partition, **launcher.additional_parameters}
        cluster.check_files(
            [read_address(key, address) for key, address in stores],
            {str(key): value for key, value in asked.items() if value is not None},
            f"one node ({SECTION}.partition, or .additional_parameters={{nodelist: NAME}}), or one job at a time: "
            f"{SECTION}.array_parallelism=1",
        )


def in_a_line(error: BaseException) -> str | None:
    """What a launcher says where it fails, or None if it isn't a launcher's error: it may come from outside."""
    if type(error).__module__.partition(".")[0] not in _PACKAGES:
        return None
    return f"hydra/launcher: {_told(error)[:400]}; what is finished is kept, and the same command goes on"


def _told(error: BaseException) -> str:
    """Which job has no result and why, or the end of its traceback; else the first line."""
    before, _, after = str(error).partition(f"\n{_RULE}")
    if before.endswith("with trace:"):
        trace = after.partition(f"\n{_RULE}")[0].rstrip().splitlines()
        return f"{before.removesuffix(' with trace:')}: {trace[-1].strip() if trace else 'no reason is given'}"
    if type(error).__name__ == "UncompletedJobError":
        job, state = [*before.splitlines(), ""][:2]
        return f"{job.partition(' with path ')[0]} {state}"
    return first_line(error)
