"""Hydra's own launchers and others': which of them a sweep can't rest on, and what they say where they fail.

Any launcher may be asked for: each arm is a job of its own then, searched by one process (docs/deploy/README.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from optsweep.errors import UserError, first_line

_REFUSED: Mapping[str, str] = {
    "hydra_plugins.hydra_ray_launcher.ray_aws_launcher.RayAWSLauncher": (
        "hydra/launcher=ray_aws: its jobs write to files of machines that it rents, and takes down with them; start a "
        "cluster with `ray up`, and give hydra/launcher=ray with its address"
    )
}
"""What is said of a launcher under which trials are lost, by its class."""

_PACKAGES = ("submitit", "joblib", "ray", "boto3", "botocore")
"""What the launchers of Hydra's own plugins stand on."""


def check_stock(target: str) -> None:
    """Raise UserError for a launcher that a sweep can't rest on, before anything is written."""
    if target in _REFUSED:
        raise UserError(_REFUSED[target])


def in_a_line(error: BaseException) -> str | None:
    """What a launcher says where it fails, or None if it isn't a launcher's error: it may come from outside."""
    if type(error).__module__.partition(".")[0] not in _PACKAGES:
        return None
    return f"hydra/launcher: {first_line(error)[:300]}; what is finished is kept, and the same command goes on"
