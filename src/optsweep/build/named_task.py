"""A task by what the config says of it: what Python code gave, or what a dotted path names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from optsweep.build.stated import Stated, stated
from optsweep.build.targets import listed, unpickled
from optsweep.checks import of_type, signature_of
from optsweep.config.sections import TaskConfig
from optsweep.errors import UserError, is_of_own_code, located, nearest
from optsweep.imported import imported
from optsweep.tasks.base import Split, Task
from optsweep.train.process import DEFAULT_DTYPE, isolated


def build_task(config: TaskConfig) -> Task:
    """The task with its data, on the CPU: one that Python code gave, or what its dotted path names."""
    task = unpickled(config.pickled) if config.pickled else _named_task(config)
    samples_of_a_batch(config, stated(task))
    return task


def _refuse_default_dtype(config: TaskConfig) -> None:
    """Raise UserError if the task's module or constructor has set torch's default dtype, which no model would see."""
    if (found := torch.get_default_dtype()) is not DEFAULT_DTYPE:
        raise UserError(
            f"task._target_: {config.target} sets torch's default dtype to {found} outside model(), where "
            f"it is lost; set it in model(), or return the model in that dtype"
        )


def _named_task(config: TaskConfig) -> Task:
    """A task by its path: a class of tasks, a function that returns one, or a task itself."""
    with isolated():
        found = imported(config.target, "task._target_")
        _refuse_default_dtype(config)
    if isinstance(found, Task) and not config.options:
        return found
    ours = config.target.startswith(("optsweep.", "torch."))  # of which only tasks are called
    if not callable(found) or (not issubclass(found, Task) if inspect.isclass(found) else ours):
        raise UserError(
            f"task._target_: {config.target} is no optsweep.tasks.base.Task, no optsweep.Task, and no function that "
            f"returns one"
            + (
                f"; a task that is built already has no task.{next(iter(config.options))}"
                if isinstance(found, Task)
                else ""
            )
        )
    _check_options(config, found)
    try:
        with isolated():
            task = found(**config.options)
            _refuse_default_dtype(config)
    except UserError:
        raise
    except (ValueError, TypeError, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        own = is_of_own_code(error) or not inspect.isclass(found)
        raise UserError(
            f"task: {located(error)}" if own else said if said.startswith("task") else f"task: {said}"
        ) from None
    if not isinstance(task, Task):
        raise UserError(f"task._target_: {config.target} returns {type(task).__name__}; return an optsweep.Task")
    return task


def _check_options(config: TaskConfig, found: Callable[..., Any]) -> None:
    """Raise UserError for an option that a task doesn't have, or that isn't what its annotation says."""
    parameters = signature_of(found)
    known = [name for name in parameters if name != "self"]
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key, value in config.options.items():
        if key not in known:
            raise UserError(f"task.{key}: {config.name} has no such option{nearest(key, known)}; {listed(known)}")
        if not config.target.startswith("optsweep."):  # whose tasks check them closer
            of_type(f"task.{key}", value, parameters[key].annotation)


def samples_of_a_batch(config: TaskConfig, said: Stated) -> int:
    """The samples of a batch. Raises UserError if there are fewer."""
    samples = said.sizes[Split.TRAIN]
    if config.batch_size is not None and config.batch_size > samples:
        raise UserError(
            f"task.batch_size: {config.batch_size} is more than the {samples} training samples of "
            f"{config.name}; give a smaller number, or full"
        )
    return config.batch_size or samples
