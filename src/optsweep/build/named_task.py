"""A task by what the config says of it: what Python code gave, or what a dotted path names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

import torch

from optsweep.build.stated import Stated, stated
from optsweep.build.targets import listed, unpickled
from optsweep.checks import of_type, signature_of
from optsweep.config.arm import Arm
from optsweep.config.fields import keys_of
from optsweep.config.search_space import ChoicesConfig
from optsweep.config.sections import TaskConfig
from optsweep.errors import UserError, first_line, is_of_own_code, located, nearest
from optsweep.imported import imported
from optsweep.tasks.base import Split, Task, Trainable
from optsweep.tasks.pieces import BATCH_SIZE, STEPS, Pieces
from optsweep.train.flags import changed, flags, put
from optsweep.train.own.loop import Loop, is_loop
from optsweep.train.process import DEFAULT_DTYPE, isolated

TASK, LOOP = "optsweep.Task", "optsweep.Loop"
"""As targets: of what a script made, which travels with the arm."""


def build_task(config: TaskConfig, given: Any = None) -> Trainable:
    """The task with its data, on the CPU, or a loop: what Python code gave, or what the dotted path names.

    `given` saves unpickling what was given, which also costs errors the name of their file.
    """
    task = _made(config, _found(config) if given is None else given)
    if isinstance(task, Task):
        samples_of_a_batch(config, stated(task))
    return task


def task_for(arm: Arm, given: Any = None) -> Trainable:
    """The task of an arm, as `build_task` has it, where its trials haven't chosen yet."""
    return build_task(with_searched(arm).task, given)


def with_searched(arm: Arm) -> Arm:
    """The arm with the task's options that its trials choose, at their defaults where it doesn't give them."""
    given = {*(key.path for key in keys_of(TaskConfig).values()), *(f"task.{name}" for name in arm.task.options)}
    wanted = [key for key in arm.search.over if key.startswith("task.") and key not in given]
    if not arm.search.trials or not wanted:
        return arm
    found = _found(arm.task)
    if isinstance(found, Task):
        raise _built_already(wanted[0])
    parameters = _parameters(found)
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    defaults |= found.options if isinstance(found, Loop) else {}
    options: dict[str, Any] = {}
    for key in wanted:
        name, space = key.removeprefix("task."), arm.search.space.get(key)
        default = defaults.get(name)
        if default is inspect.Parameter.empty and space is not None:
            default = space.values[0] if isinstance(space, ChoicesConfig) else space.low
        if default is None or isinstance(default, (bool, int, float, str)):
            options[name] = default
    _check_options(arm.task.name, options, parameters)
    return replace(arm, task=replace(arm.task, options={**arm.task.options, **options}))


@dataclass(frozen=True)
class Given:
    """A task or a loop that Python code gives."""

    task: Pieces | Loop  # with its options as they are
    sent: Any  # what workers make it of
    target: str
    options: Mapping[str, Any]  # as keys of the config, which holds no objects, and has keys of its own


def task_of(given: Any) -> Given:
    """A task as `compare` gets it: one, a function that returns one, whose arguments are its options, or a loop.

    Raises UserError for what is none of them.
    """
    if isinstance(given, Pieces):
        return Given(given, given, TASK, {})
    loop = Loop(given) if is_loop(given) else given
    if isinstance(loop, Loop):
        return Given(loop, loop, LOOP, _as_keys(loop.options, _VALUES))
    if not inspect.isroutine(given):
        raise UserError(
            f"task: {type(given).__name__} is no task; give optsweep.Task(model, data), a function that returns one, "
            f"or a loop of your own: def train(trial)"
        )
    parameters = signature_of(given).values()
    options = _as_keys({p.name: p.default for p in parameters}, (bool, int, float, str))
    config = TaskConfig(given.__name__, f"{given.__module__}.{given.__qualname__}", 1, 2, options=options)
    made = _made(config, given)
    if not isinstance(made, Pieces):
        raise _no_task("task: ", given.__name__, made)
    return Given(made, given, config.target, options)


_VALUES = (bool, int, float, str, list, tuple, Mapping, NoneType)
"""What the config holds."""


def _as_keys(options: Mapping[str, Any], kinds: tuple[type, ...]) -> dict[str, Any]:
    """Those options that are keys of the task: of these kinds, and not called as what every task has."""
    taken = {key.path for key in keys_of(TaskConfig).values()}
    return {name: v for name, v in options.items() if isinstance(v, kinds) and f"task.{name}" not in taken}


def not_counted(config: TaskConfig, task: Trainable) -> Iterator[str]:
    """What a task of pieces says of its trials in vain, because the config says otherwise."""
    if isinstance(task, Pieces):
        if task.batch_size not in (BATCH_SIZE, config.batch_size):
            yield f"task.batch_size: {config.batch_size or 'full'} counts, not {task.batch_size} of optsweep.Task"
        if task.steps not in (STEPS, config.steps):
            yield f"task.steps: {config.steps} counts, not {task.steps} of optsweep.Task"


def _found(config: TaskConfig) -> Any:
    """What Python code gave, or what the path names."""
    if config.target in (TASK, LOOP) and not config.pickled:
        raise UserError(
            f"task._target_: {config.target} was made by a script, and is known there alone; name a function of a "
            f"module that returns it"
        )
    with _abroad(config):
        return unpickled(config.pickled) if config.pickled else imported(config.target, "task._target_")


def _parameters(found: Any) -> Mapping[str, inspect.Parameter]:
    """Of what makes a task, or of a loop beside the trial."""
    function = found.function if isinstance(found, Loop) else found
    if not callable(function):
        return {}
    parameters = signature_of(function)
    return dict(list(parameters.items())[1:]) if function is not found or is_loop(function) else parameters


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


def _made(config: TaskConfig, found: Any) -> Trainable:
    """A task, from a class of tasks, a function that returns one, or a task itself; or a loop `train(trial)`."""
    if isinstance(found, Loop):
        return found.given(config.options, config.batch_size, config.steps)
    if is_loop(found):
        return Loop(found, options=config.options, name=config.name).given({}, config.batch_size, config.steps)
    if isinstance(found, Task):
        if config.options:
            raise _built_already(f"task.{next(iter(config.options))}")
        return found
    ours = config.target.startswith(("optsweep.", "torch."))  # of which only tasks are called
    if not callable(found) or (not issubclass(found, Task) if inspect.isclass(found) else ours):
        raise UserError(
            f"task._target_: {config.target} is no optsweep.tasks.base.Task, no optsweep.Task, and no function that "
            f"returns one"
        )
    _check_types(config, signature_of(found))
    _check_complete(config, found)
    try:
        with _abroad(config):
            task = found(**config.options)
    except UserError:
        raise
    except (ValueError, TypeError, OSError) as error:
        said = first_line(error)
        own = is_of_own_code(error) or not inspect.isclass(found)
        raise UserError(
            f"task: {located(error)}" if own else said if said.startswith("task") else f"task: {said}"
        ) from None
    if not isinstance(task, Trainable):
        raise _no_task("task._target_: ", config.target, task)
    return task


def _no_task(key: str, function: str, made: object) -> UserError:
    """What a function has to return."""
    return UserError(
        f"{key}{function} returns {type(made).__name__}; return an optsweep.Task, or name the first argument of a "
        f"loop trial: def train(trial)"
    )


def _built_already(key: str) -> UserError:
    """Why a task that is one has no options."""
    name = key.removeprefix("task.")
    return UserError(
        f"{key}: a task that is built already has no options; give a function that returns it: def task({name}=…)"
    )


def _check_types(config: TaskConfig, parameters: Mapping[str, inspect.Parameter]) -> None:
    """Raise UserError for an option that a task doesn't have, or that isn't what its annotation says."""
    _check_options(config.name, config.options, parameters)
    if not config.target.startswith("optsweep."):  # whose tasks check them closer
        for key in config.options.keys() & parameters.keys():
            of_type(f"task.{key}", config.options[key], parameters[key].annotation)


def _check_options(task: str, options: Iterable[str], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Raise UserError for an option that a task doesn't have."""
    known = [name for name, p in parameters.items() if name != "self" and p.kind is not p.VAR_KEYWORD]
    for key in options:
        if key not in known and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise UserError(f"task.{key}: {task} has no such option{nearest(key, known)}; {listed(known)}")


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
