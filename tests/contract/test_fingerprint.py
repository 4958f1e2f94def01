"""A sweep is continued by the same model, data and code only, and the refusal says in words what differs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from arms import arm_with
from optsweep.build import fingerprint, machine
from optsweep.build.assemble import build_arm
from optsweep.build.fingerprint import Identity
from optsweep.build.sources import source_digests
from optsweep.config.arm import Arm
from optsweep.errors import UserError
from optsweep.launch.prepare.continuity import CONTENT, SEARCH_RULE, _settings, check_history, note_content
from optsweep.launch.prepare.description import Description, described
from optsweep.search.slots import RULES_VERSION, Slot
from optsweep.search.studies import Studies
from optsweep.train.trial import End, Phase

MODULE = "model_of_a_user"
SOURCE = """
from torch import nn

from layers_of_a_user import head
from optsweep.tasks.tabular import Table


class Mine(Table):
    def model(self):
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), head(64))
"""
HEAD = """
from torch import nn


def head(width):
    return nn.Linear(width, 10)
"""
LOSS = """
    def loss(self, outputs, targets):
        return nn.functional.l1_loss(outputs, nn.functional.one_hot(targets, 10).float())
"""
BATCH = """
    def batch(self, split, indices):
        inputs, targets = super().batch(split, indices)
        return inputs.flip(-1), targets
"""
FOUR = "nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), head(64)"


class Sweep:
    """A sweep of one arm, whose task is in a module of the user's that changes between calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.studies = Studies.open(f"sqlite:///{folder}/optuna.db", "s")
        arm = arm_with({"weight_decay": "none"})
        self.arm: Arm = replace(arm, task=replace(arm.task, target=f"{MODULE}.Mine", options={}, batch_size=64))

    def built(self, source: str = SOURCE, head: str = HEAD) -> Description:
        """The arm with the user's files as they are now."""
        for name, text in ((MODULE, source), ("layers_of_a_user", head)):
            (self.folder / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode = True
        return described(self.arm, build_arm(self.arm))

    def begin(self) -> None:
        """Note what the arm is, and finish a trial."""
        self.crash()
        self.enqueue()
        (work,) = self.studies.pop(self.arm.name, Phase.SEARCH, "worker", 60.0, 1)
        self.studies.tell(work.claim, End.FINISHED, 1.0, 1.0)

    def crash(self) -> None:
        """Note what the arm is, and crash a trial."""
        self.seat = self.studies.take_seat([self.arm.name], whole=True)
        note_content(self.studies, self.seat, [self.arm], [self.built()])
        self.enqueue()
        (work,) = self.studies.pop(self.arm.name, Phase.SEARCH, "worker", 60.0, 1)
        self.studies.fail(work.claim, "RuntimeError: why")

    def enqueue(self) -> None:
        self.studies.enqueue(self.seat, self.arm.name, Phase.SEARCH, Slot(0, {"lr": 1e-3}, 0, "model"))

    def refusal(self, built: Description) -> str:
        """What is said when it goes on as `built`."""
        with pytest.raises(UserError) as raised:
            check_history(self.studies, [self.arm], [built])
        text = str(raised.value)
        assert "\n" not in text
        assert text.startswith(f"sweep.name=test: its arm '{self.arm.name}' has trials ")
        assert text.endswith(" give another sweep.name")
        return text


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    begun = Sweep(tmp_path)
    begun.begin()
    yield begun
    for name in (MODULE, "layers_of_a_user"):
        sys.modules.pop(name, None)


def test_code_that_crashed_in_all_trials_may_be_mended_and_they_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    sweep = Sweep(tmp_path)
    sweep.crash()

    def given_up(built: Description) -> bool:
        check_history(sweep.studies, [sweep.arm], [built])
        note_content(sweep.studies, sweep.seat, [sweep.arm], [built])
        slots = sweep.studies.history(sweep.arm.name, Phase.SEARCH, 0).slots
        return slots != {} and slots[0].crashed

    assert given_up(sweep.built()), "the code is as it was"
    mended = sweep.built(SOURCE.replace(FOUR, "nn.Linear(64, 5), nn.ReLU(), head(5)"))
    assert not given_up(mended)
    sweep.enqueue()
    (work,) = sweep.studies.pop(sweep.arm.name, Phase.SEARCH, "worker", 60.0, 1)
    sweep.studies.tell(work.claim, End.FINISHED, 1.0, 1.0)
    check_history(sweep.studies, [sweep.arm], [mended])
    assert "of another model" in sweep.refusal(sweep.built())
    for name in (MODULE, "layers_of_a_user"):
        sys.modules.pop(name, None)


def test_the_same_arm_goes_on(sweep: Sweep) -> None:
    check_history(sweep.studies, [sweep.arm], [sweep.built()])


def test_a_model_edited_from_8970_to_385_parameters_is_refused(sweep: Sweep) -> None:
    before, after = sweep.built(), sweep.built(SOURCE.replace(FOUR, "nn.Linear(64, 5), nn.ReLU(), head(5)"))
    assert (before.facts.num_parameters, after.facts.num_parameters) == (8970, 385)
    assert before.fingerprint != after.fingerprint
    text = sweep.refusal(after)
    assert (
        "has trials of another model: parameter 0.weight was 64 × 64, is 5 × 64; parameter 0.bias was 64, is 5; "
        in text
    )
    assert text.count(";") == 4
    assert " more; give another sweep.name" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("ReLU", "Sigmoid"), "has trials of another model: the first loss was 2.3"),
        (lambda text: text + LOSS, "has trials of another model: the first loss was 2.3"),
        (lambda text: text + BATCH, "has trials of other data: the first batch changed"),
        (
            lambda text: text + "\n\ndef unused():\n    pass\n",
            f"of other code: the source of {MODULE}.py changed; give",
        ),
    ],
    ids=["relu_to_sigmoid", "an_l1_loss", "other_data", "code_without_effect"],
)
def test_an_edit_of_the_user_s_module_is_refused(sweep: Sweep, change: Callable[[str], str], words: str) -> None:
    text = sweep.refusal(sweep.built(change(SOURCE)))
    assert words in text
    assert f"the source of {MODULE}.py changed" in text
    assert ("(same data, same seed)" in text) == ("the first loss" in words)


def test_another_start_in_a_module_that_the_user_s_imports_is_refused(sweep: Sweep) -> None:
    head = HEAD.replace(
        "    return nn.Linear(width, 10)", "    made = nn.Linear(width, 10)\n    made.weight.data *= 2\n    return made"
    )
    text = sweep.refusal(sweep.built(head=head))
    assert "the initial norm of 4.weight was " in text
    assert "the source of layers_of_a_user.py changed" in text


def test_another_device_and_another_version_of_the_numerics_are_refused(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = machine.device_model(torch.device("cpu"))
    monkeypatch.setattr(machine, "device_model", lambda _: "Abacus 3000")
    said = f"has trials of another device: the device was {device}, is Abacus 3000; sweep.allow=[device] lets trials"
    assert said in sweep.refusal(sweep.built())
    now = fingerprint.NUMERICS_VERSION
    monkeypatch.setattr(fingerprint, "NUMERICS_VERSION", 99)
    assert f"optsweep's numerics version was {now}, is 99; give another" in sweep.refusal(sweep.built())


def test_trials_are_deterministic_on_demand_only_and_neither_kind_goes_on_with_the_other(sweep: Sweep) -> None:
    before = sweep.built()
    assert before.content["trainer.deterministic"] is False
    sweep.arm = replace(sweep.arm, trainer=replace(sweep.arm.trainer, deterministic=True))
    after = sweep.built()
    assert after.content["trainer.deterministic"] is True
    assert after.fingerprint != before.fingerprint
    assert "trainer.deterministic was False, is True" in sweep.refusal(after)


DEFAULT_DTYPE = "torch.set_default_dtype(torch.float64)"


@pytest.mark.parametrize(
    "source",
    [
        f"{SOURCE}\n\nimport torch\n{DEFAULT_DTYPE}\n",
        f"import torch\n{SOURCE}\n    def __init__(self):\n        super().__init__()\n        {DEFAULT_DTYPE}\n",
    ],
    ids=["module", "constructor"],
)
def test_a_default_dtype_that_no_model_would_see_is_refused_in_a_line(sweep: Sweep, source: str) -> None:
    with pytest.raises(UserError) as refused:
        sweep.built(source)
    assert str(refused.value) == (
        f"task._target_: {MODULE}.Mine sets torch's default dtype to torch.float64 outside model(), where it is lost; "
        "set it in model(), or return the model in that dtype"
    )
    assert torch.get_default_dtype() is torch.float32


def test_a_default_dtype_of_the_calling_program_changes_no_trial_and_is_told_of(sweep: Sweep) -> None:
    expected = sweep.built()
    torch.set_default_dtype(torch.float64)
    try:
        built = sweep.built()
    finally:
        torch.set_default_dtype(torch.float32)
    assert built.fingerprint == expected.fingerprint
    (note,) = set(built.warnings) - set(expected.warnings)
    assert note.startswith("torch's default dtype is torch.float64 in this process, and torch.float32 for the trials")


def test_last_bits_are_no_difference(sweep: Sweep) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = sweep.built()
        assert one.identity.approximate
        torch.set_num_threads(3)
        several = sweep.built()
        assert several.identity.differences(one.identity) == []
        assert several.fingerprint == one.fingerprint
    finally:
        torch.set_num_threads(threads)
    noisy = {key: value * (1 + 1e-6) for key, value in one.identity.approximate.items()}
    assert one.identity.differences(Identity(one.identity.exact, noisy)) == []
    other = {key: value * (1 + 1e-3) for key, value in one.identity.approximate.items()}
    assert len(one.identity.differences(Identity(one.identity.exact, other))) == len(
        [value for value in other.values() if value]
    )


def test_trials_of_a_version_that_noted_settings_only_are_refused(sweep: Sweep) -> None:
    sweep.studies.set_note(sweep.arm.name, "identity", None)
    assert f"optsweep's numerics version was 1, is {fingerprint.NUMERICS_VERSION}; give another" in sweep.refusal(
        sweep.built()
    )


def test_a_changed_setting_is_named_first(sweep: Sweep) -> None:
    built = sweep.built()
    changed = replace(built, content={**built.content, "trainer.steps": 7})
    assert "has trials under other settings: trainer.steps was " in sweep.refusal(changed)


def test_a_search_is_not_continued_by_other_rules(sweep: Sweep) -> None:
    sweep.arm = replace(sweep.arm, search=replace(sweep.arm.search, trials=4))
    settings = {**_settings(sweep.arm, sweep.built())}
    del settings[SEARCH_RULE]
    sweep.studies.set_note(sweep.arm.name, CONTENT, settings)
    assert f"the version of the search's rules was 1, is {RULES_VERSION}" in sweep.refusal(sweep.built())


def test_only_the_user_s_own_files_are_the_user_s(sweep: Sweep) -> None:
    sweep.built()
    task = type(build_arm(sweep.arm).task)
    assert list(source_digests([task, torch.nn.Linear, Path])) == ["layers_of_a_user.py", f"{MODULE}.py"]
