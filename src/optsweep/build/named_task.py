"""A task by what the config says of it: what Python code gave, or what a dotted path names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from optsweep.build.stated import Stated, stated
from optsweep.build.targets import listed, resolve, signature_of, unpickled
from optsweep.checks import of_type
from optsweep.config.sections import TaskConfig
from optsweep.errors import UserError, located, nearest
from optsweep.tasks.base import Split, Task, Trainable
from optsweep.train.flags import changed, flags, put
from optsweep.train.own.loop import Loop, is_loop
from optsweep.train.process import DEFAULT_DTYPE, isolated


def build_task(config: TaskConfig, given: Trainable | None = None) -> Trainable:
    """The task with its data, on the CPU, or a loop: what Python code gave, or what the dotted path names.

    `given` saves unpickling what was given, which also costs errors the name of their file.
    """
    found = given or (unpickled(config.pickled) if config.pickled else _named_task(config))
    if isinstance(found, Loop):
        return found.given(config.options if config.pickled else {}, config.batch_size)
    samples_of_a_batch(config, stated(found))
    return found


@contextmanager
def _abroad(config: TaskConfig) -> Iterator[None]:
    """The process is as before, but for switches of torch: outside model() they hold for all, as a script sets them."""
    with isolated():
        before = flags()
        yield
        _refuse_default_dtype(config)
        own = changed(before)
    put(own)


def _refuse_default_dtype(config: TaskConfig) -> None:
    """Raise UserError if the task's module or constructor has set torch's default dtype, which no model would see."""
    if (found := torch.get_default_dtype()) is not DEFAULT_DTYPE:
        raise UserError(
            f"task._target_: {config.target} sets torch's default dtype to {found} outside model(), where "
            f"it is lost; set it in model(), or return the model in that dtype"
        )


def _named_task(config: TaskConfig) -> Trainable:
    """A task by its path: a class of tasks, a function that returns one, a task itself, or a loop `train(trial)`."""
    with _abroad(config):
        found = resolve(config.target, "task._target_")
    if isinstance(found, Task) and not config.options:
        return found
    if isinstance(found, Loop):
        return found.given(config.options, config.batch_size)
    if is_loop(found):
        return Loop(found, options=config.options, steps=config.steps, name=config.name)
    if not callable(found) or (inspect.isclass(found) and not issubclass(found, Task)):
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
    _check_complete(config, found)
    try:
        with _abroad(config):
            task = found(**config.options)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(str(error).splitlines()[0] if inspect.isclass(found) else f"task: {located(error)}") from None
    if not isinstance(task, Trainable):
        raise UserError(
            f"task._target_: {config.target} returns {type(task).__name__}; return an optsweep.Task, or name the "
            f"first argument of a loop trial: def train(trial)"
        )
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


def _check_complete(config: TaskConfig, found: Callable[..., Any]) -> None:
    """Raise UserError for an argument that is needed and not given."""
    for parameter in signature_of(found).values():
        plain = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if plain and parameter.default is parameter.empty and parameter.name not in config.options:
            raise UserError(
                f"task.{parameter.name}: {config.target} needs it, and it isn't given (the first argument of a loop of "
                f"one's own is called trial)"
            )


def samples_of_a_batch(config: TaskConfig, said: Stated) -> int:
    """The samples of a batch. Raises UserError if there are fewer."""
    samples = said.sizes[Split.TRAIN]
    if config.batch_size is not None and config.batch_size > samples:
        raise UserError(
            f"task.batch_size: {config.batch_size} is more than the {samples} training samples of "
            f"{config.name}; give a smaller number, or full"
        )
    return config.batch_size or samples
