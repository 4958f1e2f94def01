"""The one place that speaks to Ray: a cluster that is connected to, or a local one that is started.

What goes wrong there is a line that names the key. Ray is imported where it is used: it is an extra.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shlex
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from optsweep.config.launchers import SECTION
from optsweep.errors import UserError, first_line, without_secrets
from optsweep.launch.environment import num_cores
from optsweep.launch.pools.actor import ASIDE
from optsweep.report.wording import plural

ADDRESS = f"{SECTION}.address"

LOCAL_MEMORY = 80 * 1024**2
"""Of a local Ray's object store: only jobs and answers go through it."""

NOT_SHIPPED = ["mlruns", "multirun", "outputs", "reports", ".venv", "venv", ".git", "__pycache__"]
"""Of the working folder. What .gitignore names isn't either."""

CONNECT_SECONDS = 5.0

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray is going to do, and else warns of
}
_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its way to keep all of its sockets on 127.0.0.1
    "RAY_worker_niceness": "0",  # as the local launcher's workers
}


class LostError(Exception):
    """An actor is no more, and so is what it was to do."""


@dataclass(frozen=True)
class Needs:
    """What each worker has of its node; `num_gpus` None: one for each of a trial's ranks where the cluster has any."""

    num_cpus: float
    num_gpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    ranks: int = 1

    def settled(self, nodes: Sequence[Mapping[str, float]]) -> Needs:
        """With a number of GPUs."""
        if self.num_gpus is not None:
            return self
        return replace(self, num_gpus=float(self.ranks * any(node.get("GPU") for node in nodes)))

    @property
    def by_name(self) -> dict[str, tuple[str, float]]:
        """As Ray calls them, with the keys that ask for them."""
        asked = {"CPU": ("num_cpus", self.num_cpus), "GPU": ("num_gpus", self.num_gpus or 0.0)}
        asked |= {name: (f"resources.{name}", value) for name, value in self.resources.items()}
        return {name: held for name, held in asked.items() if held[1] > 0}

    def room(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How many workers nodes with these resources hold, if nobody else uses them."""
        of_each = [value for _, value in self.by_name.values()]
        names = list(self.by_name)
        return sum(
            int(min(node.get(name, 0.0) / value for name, value in zip(names, of_each, strict=True)) + 1e-6)
            for node in nodes
        )

    def check(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """Raise UserError where no node could hold one, ever."""
        if not self.by_name:
            raise UserError(f"{SECTION}.num_cpus: workers that ask for nothing have no bound; give more than 0")
        if self.room(nodes):
            return
        for name, (key, value) in self.by_name.items():
            if (most := max((node.get(name, 0.0) for node in nodes), default=0.0)) < value:
                raise UserError(
                    f"{SECTION}.{key}: no node has {value:g} for a worker, {most:g} at most; {in_words(nodes)}"
                )
        raise UserError(f"{SECTION}: no node has {self} at once; {in_words(nodes)}")

    def __str__(self) -> str:
        return " and ".join(f"{key}={value:g}" for key, value in self.by_name.values())


def in_words(nodes: Sequence[Mapping[str, float]]) -> str:
    """'the cluster has 2 nodes: 16 CPU, 2 GPU'."""
    total: dict[str, float] = {"CPU": 0.0, "GPU": 0.0}
    for node in nodes:
        for name, value in node.items():
            if name in total or not re.match(r"node:|memory$|object_store_memory$|accelerator_type:", name):
                total[name] = total.get(name, 0.0) + value
    return f"the cluster has {plural(len(nodes), 'node')}: " + ", ".join(f"{v:g} {n}" for n, v in total.items())


@dataclass(frozen=True)
class RayPlace:
    """Which Ray, and what workers there get of the user's. `address` None: one of this machine's own."""

    address: str | None = None
    runtime_env: Mapping[str, Any] | None = None

    @property
    def folder(self) -> str | None:
        """The working folder of a worker; None: what was shipped of it."""
        return str(Path.cwd()) if self.address is None else None

    @property
    def shipped(self) -> dict[str, Any]:
        """The runtime environment of workers."""
        given = dict(self.runtime_env or {})
        if self.address is None:
            return given
        excluded = [*NOT_SHIPPED, *given.pop("excludes", ())]
        whole = {"working_dir": str(Path.cwd()), "excludes": excluded, **given}
        if not whole["working_dir"]:
            del whole["working_dir"], whole["excludes"]
        return whole


class Cluster:
    """A Ray that this process is connected to, until it is closed."""

    def __init__(self, ray: ModuleType, *, ours: bool) -> None:
        self._ray, self._ours = ray, ours

    @classmethod
    def connected(cls, place: RayPlace, needs: Needs, workers: int | None) -> Cluster:
        """Connect, or start one that has room for so many workers. Raises UserError with one line."""
        os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
        if place.address is None:
            os.environ.update(_LOCAL)
        ray = _imported()
        if ray.is_initialized():  # by the program that called; it closes it too
            return cls(ray, ours=False)
        ray._private.utils.get_entrypoint_name = _entrypoint
        shipped = _shipped(ray, place)
        with _handlers_kept():
            if place.address is None:
                _start(ray, shipped, needs, workers)
            else:
                _connect(ray, place.address, shipped)
        ray._private.worker.print_to_stdstream = _unsaid
        return cls(ray, ours=True)

    def nodes(self) -> list[Mapping[str, float]]:
        """The resources of each node that lives."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def start(self, cls: type, needs: Needs, *arguments: Any) -> Any:
        """An actor, which begins to exist when there is room."""
        actor = self._ray.remote(max_restarts=0, concurrency_groups={ASIDE: 1})(cls)
        resources = dict(needs.resources)
        options = {"num_cpus": needs.num_cpus, "num_gpus": needs.num_gpus or 0, "resources": resources}
        return actor.options(**options, scheduling_strategy="SPREAD").remote(*arguments)

    def call(self, method: Any, *arguments: Any) -> Any:
        """A reference to what comes of it; what was called before comes first, unless its method is one aside."""
        return method.remote(*arguments)

    def wait(self, references: Sequence[Any], seconds: float, *, for_all: bool = False) -> list[Any]:
        """Those that have come to something: one at least, unless time is up."""
        if not references:
            time.sleep(seconds)
            return []
        count = len(references)
        done, _ = self._ray.wait(references, num_returns=count if for_all else 1, timeout=seconds)
        if done and not for_all and count > 1:
            done, _ = self._ray.wait(references, num_returns=count, timeout=0)
        return list(done)

    def result(self, reference: Any) -> Any:
        """What came of it. Raises LostError where its actor is gone, and UserError where it can't come to be."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RuntimeEnvSetupError as error:
            raise UserError(f"{SECTION}.runtime_env: {_short(error)}") from None
        except errors.ActorUnavailableError as error:
            raise LostError(f"its node can't be reached: {_short(error)}") from None
        except errors.OutOfMemoryError:
            raise LostError("Ray has ended it, its node being out of memory") from None
        except errors.RayTaskError as error:
            raise RuntimeError(f"in a worker's actor:\n{error}") from None
        except errors.RayActorError as error:
            if "ModuleNotFoundError" in str(error) or "ImportError" in str(error):
                missing = re.findall(r"(?:ModuleNotFound|Import)Error: [^\n]*", str(error))[-1:]
                raise UserError(
                    f"{ADDRESS}: a node's Python lacks what this one has ({''.join(missing)}); install optsweep there, "
                    f"or have it installed by {SECTION}.runtime_env={{pip: […]}}"
                ) from None
            raise LostError("its actor or its node was lost") from None

    def kill(self, actor: Any) -> None:
        """End an actor's process."""
        with suppress(Exception):  # it is gone, or all of Ray is
            self._ray.kill(actor)

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        if self._ours:
            self._ray.shutdown()


def _unsaid(*_: object, **__: object) -> None:
    """What Ray prints of its nodes, on stdout and whatever it was told: pages of their logs where one is lost."""


def _imported() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(f"hydra/launcher=ray needs the extra: pip install 'optsweep[ray]' ({error})") from None


def _entrypoint() -> str:
    """The command, which all who see the cluster's dashboard see."""
    import psutil

    return without_secrets(shlex.join(psutil.Process().cmdline()))


def _shipped(ray: ModuleType, place: RayPlace) -> dict[str, Any] | None:
    """The runtime environment. Raises UserError for one that Ray would refuse."""
    try:
        ray.runtime_env.RuntimeEnv(**place.shipped)
    except (TypeError, ValueError) as error:
        raise UserError(f"{SECTION}.runtime_env: {_short(error)}") from None
    return place.shipped or None


def _start(ray: ModuleType, shipped: Mapping[str, Any] | None, needs: Needs, workers: int | None) -> None:
    cores = num_cores()
    wanted = (workers or 0) * needs.num_cpus  # as many as are asked for, as the local launcher has it
    try:
        ray.init(
            address="local",
            num_cpus=max(cores, int(wanted + 0.999)) if needs.num_cpus <= cores else cores,
            object_store_memory=LOCAL_MEMORY,
            include_dashboard=False,
            runtime_env=shipped,
            **_SILENT,
        )
    except _REFUSALS as error:
        ray.shutdown()
        raise UserError(f"{ADDRESS}: a Ray of this machine's own can't be started ({_short(error)})") from None


def _connect(ray: ModuleType, address: str, shipped: Mapping[str, Any] | None) -> None:
    _check_reachable(address)
    try:
        with warnings.catch_warnings(action="ignore"):  # Ray Client's, of what is said below
            ray.init(address=address, runtime_env=shipped, **_SILENT)
    except _REFUSALS as error:
        ray.shutdown()
        raise _refused(address, error) from None


_REFUSALS = (ConnectionError, RuntimeError, ValueError, TypeError, OSError, ImportError)
_SILENT: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def _refused(address: str, error: Exception) -> UserError:
    """What is said of a cluster that can't be had."""
    text = str(error)
    if isinstance(error, ImportError) or "ray[client]" in text:
        return UserError(f"{ADDRESS}: {address} needs more of Ray: pip install 'ray[client]'")
    if "ersion mismatch" in text:
        theirs, ours = (dict(re.findall(r"(Ray|Python): (\S+)", part)) for part in text.split("This process")[:2])
        both = " and Python ".join
        return UserError(
            f"{ADDRESS}: the cluster at {address} runs Ray {both([theirs['Ray'], theirs['Python']])}, this command Ray "
            f"{both([ours['Ray'], ours['Python']])}; they must be the same"
        )
    if re.search(r"working_dir|Package size|excludes|runtime_env", text):
        return UserError(
            f"{SECTION}.runtime_env: {_short(error)}; excludes: […] leaves out files of the working folder"
        )
    return UserError(f"{ADDRESS}: there is no Ray cluster at {address} ({_short(error)}); {_GIVE}")


_GIVE = "give auto, HOST:PORT, ray://HOST:PORT, or null (one of this machine's own)"


def _check_reachable(address: str) -> None:
    """Raise UserError where nobody listens: Ray itself tries for half a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeError:
        reason = "no host has such a name"
    else:
        return
    raise UserError(f"{ADDRESS}: there is no Ray cluster at {address} ({reason}); {_GIVE}")


def _short(error: BaseException) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", first_line(error))[:200]


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray puts a handler of SIGTERM of its own, which isn't how a sweep is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
