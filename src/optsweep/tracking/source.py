"""Where the code that ran comes from, as MLflow's own tags say it."""

from __future__ import annotations

from functools import cache


def source_tags() -> dict[str, str]:
    """MLflow's tags of a run's source."""
    commit = git_commit()
    return {
        "mlflow.source.name": "optsweep",
        "mlflow.source.type": "LOCAL",
        **({"mlflow.source.git.commit": commit} if commit else {}),
    }


@cache
def git_commit() -> str | None:
    """Commit of the working directory's repository, if it is one; asked once per process."""
    import subprocess

    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
