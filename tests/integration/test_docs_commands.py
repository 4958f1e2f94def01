"""Every command of README.md and docs/*.md: run here, small, or by the test named above it, or it is said why not.

All run in one folder, in the order of PAGES, as somebody does who follows the pages.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import optsweep
from optsweep.cli.doorman import run
from optsweep.cli.main import main
from optsweep.cli.table import VERBS

ROOT = Path(__file__).parents[2]
FIRST = [ROOT / "docs" / "start.md", ROOT / "README.md"]
PAGES = [*FIRST, *sorted({*(ROOT / "docs").glob("*.md")} - {*FIRST})]
MARK = r"(?:^<!-- (?P<mark>(?:not run|run by): .*?) -->\n)?"
BLOCK = re.compile(MARK + r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SHELL = ("sh", "bash", "console")
COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?(?:optsweep|make|pip|python3?)\b", re.M)
SMALL = {
    "trainer.steps": "8",
    "trainer.rungs": "2",
    "trainer.device": "cpu",
    "search.trials": "2",
    "confirm.seeds": "1",
    "hydra.launcher.workers": "0",
    "hydra.launcher.report": "false",
}
REPORTED = "sweep.name=first"
"""Of the sweep whose report other commands look at."""


@dataclass(frozen=True)
class Shown:
    """A block of a page."""

    page: Path
    line: int
    kind: str
    mark: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        joined = self.text.replace("\\\n", " ")
        return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def shown() -> Iterator[Shown]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            line = text[: found.start("text")].count("\n")
            yield Shown(page, line, found["kind"], found["mark"] or "", found["text"])


BLOCKS = [block for block in shown() if block.kind in SHELL]
TO_RUN = [block for block in BLOCKS if not block.mark]


def title(block: Shown) -> str:
    return f"{block.page.stem}-{block.line}"


def small(command: list[str]) -> list[str]:
    """A sweep's command with few short trials, whatever it says itself; a verb's as it is."""
    if command[0] in VERBS or "--cfg" in command or command[0] == "--help":
        return command
    without_search = "search=none" in command
    given = {key: value for key, value in SMALL.items() if not (without_search and key.startswith("search."))}
    if REPORTED in command:
        given |= {"confirm.seeds": "2", "hydra.launcher.report": "true"}
    kept = [word for word in command if word.partition("=")[0] not in given]
    return [*kept, *(f"{key}={value}" for key, value in given.items())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder with what the pages have one write, and the examples where the pages have them."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(empty_store, folder / "mlruns")
    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    extending = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for name, content in re.findall(r"^`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)^```$", extending, re.M | re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    own = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", own, re.M | re.S)
    (loop,) = (block.partition("\nresult = ")[0] for block in blocks if "def train(trial, dropout=0.1):" in block)
    (folder / "mine.py").write_text(loop)
    return folder


@pytest.mark.parametrize("block", TO_RUN, ids=title)
def test_a_command_runs(block: Shown, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    for program, *arguments in block.commands:
        assert program == "optsweep", f"{program}: mark the block, or teach this test to run it"
        if arguments == ["--help"]:
            monkeypatch.setattr("sys.argv", ["optsweep", "--help"])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0
        else:
            assert run(small(arguments)) == 0, shlex.join(arguments)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark], ids=title)
def test_a_marked_block_has_its_reason_or_its_test(block: Shown) -> None:
    what, _, said = block.mark.partition(": ")
    if what == "not run":
        assert len(said.split()) >= 2
    else:
        path, _, name = said.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_no_command_hides_in_a_block_without_a_language() -> None:
    assert [title(block) for block in shown() if not block.kind and COMMAND.search(block.text)] == []


def test_the_readmes_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    shutil.copytree(empty_store, tmp_path / "mlruns")
    (block,) = (found for found in shown() if found.page.name == "README.md" and found.kind == "python")
    assert len(block.text.splitlines()) <= 10
    whole = optsweep.compare

    def few(task: Any, arms: Any, *, name: str) -> Any:
        return whole(
            task, arms, name=name, search=1, confirm=2, workers=0, quiet=True, trainer={"steps": 4, "rungs": 2}
        )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(optsweep, "compare", few, raising=False)
    exec(compile(block.text, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "reports" / "digits" / "index.html").is_file()
