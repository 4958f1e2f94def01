"""The command line as a whole: its help, the verbs, what can be listed, the pages of the guide, the Tab key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from optsweep.cli.completion import completions
from optsweep.cli.doorman import run
from optsweep.cli.table import HELP, VERBS
from optsweep.config.choices import GROUPS, KINDS, OF_SAMPLERS, kinds
from optsweep.config.sections import SearchConfig
from optsweep.errors import UserError
from optsweep.search.slots import Slot
from optsweep.search.studies import Studies
from optsweep.train.trial import Phase

ROOT = Path(__file__).resolve().parents[2]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(list(arguments)) == 0
    return capsys.readouterr().out


# -- help ------------------------------------------------------------------------------------------------------------


def test_the_help_fits_a_screen_and_has_every_verb() -> None:
    lines = HELP.splitlines()
    assert 24 <= len(lines) <= 50
    assert max(map(len, lines)) <= 100
    for verb in VERBS.values():
        assert sum(line.startswith(f"  {verb.name} ") and verb.does in line for line in lines) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_of_its_own(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run([verb, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: optsweep {verb}")


def test_a_typo_is_told_the_nearest_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stauts", "mine"]) == 2
    assert "no such verb (did you mean status?)" in capsys.readouterr().err


# -- list ------------------------------------------------------------------------------------------------------------


def test_everything_that_ships_says_what_it_is() -> None:
    found = {kind.name: kind.choices for kind in kinds()}
    assert tuple(found) == KINDS
    silent = [(name, choice.name) for name, choices in found.items() for choice in choices if not choice.does]
    assert not silent
    assert {choice.name for choice in found["optimizers"]} == {
        path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml")
    }


def test_samplers_are_those_that_the_config_allows() -> None:
    for name in OF_SAMPLERS:
        SearchConfig(sampler=name)
    with pytest.raises(UserError) as refused:
        SearchConfig(sampler="nosuch")
    assert all(name in str(refused.value) for name in OF_SAMPLERS)


def test_own_ones_are_listed_with_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for path, text in (("conf/task/mine.yaml", "# My task. More of it."), ("sweeps/q.yaml", "# Is mine better?")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(f"{text}\nname: x\n")
    assert re.search(r"^  mine +My task\. \[conf/task/mine\.yaml\]$", said(capsys, "list", "tasks"), re.MULTILINE)
    assert "Is mine better? [sweeps/q.yaml]" in said(capsys, "list", "sweeps")
    assert re.search(r"^tasks +22  task=NAME", said(capsys, "list"), re.MULTILINE)


def test_a_kind_by_its_group_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "list", "schedule", "--json"))
    assert (found["kind"], found["chosen"]) == ("schedules", "schedule=NAME")
    assert run(["list", "optimzers"]) == 2
    assert "(did you mean optimizers?)" in capsys.readouterr().err


def test_sweeps_of_the_store_are_listed_with_state_and_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/optuna.db"
    for sweep, finished in (("done", [2, 1, 1]), ("begun", None)):
        studies = Studies.open(url, sweep)
        with studies.take_seat(["optimizer=sgd"], whole=True) as seat:
            studies.set_note("optimizer=sgd", "planned", [2, 1, 1])
            studies.enqueue(seat, "optimizer=sgd", Phase.SEARCH, Slot(0, {"lr": 0.1}, 0, "model"))
        if finished:
            studies.set_note("optimizer=sgd", "finished", finished)
    report = tmp_path / "reports" / "done"
    report.mkdir(parents=True)
    headlines = ["On iris (30 test samples), a is better than b: mean test loss lower by 1.", "On wine, no."]
    (report / "results.json").write_text(json.dumps({"groups": [{"headline": text} for text in headlines]}))
    stored = json.loads(said(capsys, "list", "sweeps", "--storage", url, "--json"))["stored"]
    assert {held["name"]: (held["state"], held["arms"], held["done"], held["planned"]) for held in stored} == {
        "done": ("finished", 1, 0, 3),
        "begun": ("stopped", 1, 0, 3),
    }
    assert [held["verdict"] for held in stored if held["name"] == "done"] == [
        "On iris, a is better than b (and 1 more)"
    ]
    assert "begun: stopped, 1 arm, 0 of 3 trials" in said(capsys, "list", "sweeps", "--storage", url)


# -- docs ------------------------------------------------------------------------------------------------------------


def test_pages_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = said(capsys, "docs")
    assert all(f"  {path.stem} " in listed for path in (ROOT / "docs").glob("*.md"))
    assert said(capsys, "docs", "docs/judge.md") == (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")
    machines = (ROOT / "docs" / "deploy" / "README.md").read_text(encoding="utf-8")
    assert all(said(capsys, "docs", page) == machines for page in ("deploy", "docs/deploy", "docs/deploy/README.md"))
    assert run(["docs", "jugde"]) == 2
    assert "(did you mean judge?)" in capsys.readouterr().err


def test_what_the_help_of_verbs_names_is_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit):
            run([verb, "--help"])
    named = re.findall(r"optsweep docs ([\w-]+)", " ".join(capsys.readouterr().out.split()))
    assert named
    assert all((ROOT / "docs" / f"{page}.md").is_file() for page in named)


# -- the Tab key -----------------------------------------------------------------------------------------------------


def test_words_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports" / "mine").mkdir(parents=True)
    (tmp_path / "reports" / "mine" / "results.json").touch()
    (tmp_path / "reports" / "$(mine)").mkdir(parents=True)  # bash would run it
    (tmp_path / "reports" / "$(mine)" / "results.json").touch()
    asked: list[str] = []

    def of_hydra(line: str) -> Sequence[str]:
        asked.append(line)
        return ["optimizer=soap", "optimizer=sgd", "sync."]

    assert completions("optsweep sy", of_hydra) == ["sync", "sync."]
    assert completions("optsweep show ", of_hydra) == ["mine"]
    assert completions("optsweep list sch", of_hydra) == ["schedules"]
    assert completions("optsweep docs jud", of_hydra) == ["judge"]
    assert "--json" in completions("optsweep status --", of_hydra)
    assert "soap_vs_adamw" in completions("optsweep -cn so", of_hydra)
    assert completions("optsweep check task=a,b optimizer=adamw,so", of_hydra) == ["optimizer=adamw,soap"]
    assert asked[-1] == "optsweep task=a optimizer=so"  # what Hydra can read: the first of each list
    assert completions("optsweep -m --nosuch=", lambda line: sys.exit(2)) == []


def test_completion_in_bash(tmp_path: Path) -> None:
    """The script that Hydra makes is evaluated by bash, and its function asked as bash does when Tab is hit."""
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "mine.yaml").write_text("name: mine\n")
    command = tmp_path / "bin" / "optsweep"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m optsweep "$@"\n')
    command.chmod(0o755)
    script = """eval "$(optsweep -sc install=bash)"
    for line in "optsweep sta" "optsweep -m optimizer=adamw,so" "optsweep task=mi"; do
      COMP_LINE="$line" COMP_POINT=${#line}; words=($line); COMP_CWORD=$((${#words[@]} - 1))
      COMPREPLY=(); hydra_bash_completion; echo "${COMPREPLY[@]}"
    done; complete -p optsweep"""
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    verb, listed, own, registered = ended.stdout.splitlines()
    assert (verb, listed, own) == ("status", "optimizer=adamw,soap", "task=mine")
    assert "-F hydra_bash_completion optsweep" in registered
    assert ended.stderr == ""


def test_kinds_are_config_groups() -> None:
    assert all((ROOT / "conf" / group).is_dir() for group in GROUPS.values())
