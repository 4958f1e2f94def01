"""A grammar of bad input: whatever is typed or lies in a file, a refusal is a line, and not a byte is written.

Exit code 2, at most three lines, the key or the file named, no traceback. Hundreds of inputs go through the function
that the command line calls. What is wrong with a value is found after Hydra has composed the config, which takes a
tenth of a second; for plain values of known keys the composed config is kept, and only they are set in it (`quick`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from optsweep.cli import doorman
from optsweep.cli.doorman import run
from optsweep.config.compose import compose
from optsweep.config.door import arm_of
from optsweep.config.search_space import opened
from optsweep.launch import sweep


def listed() -> dict[str, list[str]]:
    """The list that was written by hand, by section."""
    found: dict[str, list[str]] = {}
    for line in (Path(__file__).parent / "bad_input.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            inputs = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            inputs.append(re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), line))
    return found


def _words(text: str) -> list[str]:
    return text.split()


LISTED = listed()

BASE = [
    *("task=digits_mlp", "search.trials=2", "confirm.seeds=1", "sweep.name=bad", "trainer.steps=10"),
    "hydra.launcher.workers=0",  # what a worker would refuse is refused here, and sooner
]

NO_NUMBERS = ("two", "null", "true", "[1]", "{a:1}", "''", "1e", "nan", "inf", "-1", "0.5.0", "１２x", "1_0x")
NO_WHOLES = ("1.5", "1e-3", "99999999999999999999", "1e400", "-99999999999999999999")
NO_TRUTHS = ("no", "yes", "1", "0.0", "[true]", "maybe", "{a:true}")
NO_WORDS = ("5", "true", "[a]", "{a:b}", "1.5", "''", "nosuch")
NOT_POSITIVE = ("0", "-1e-3", "-inf")

WHOLES = _words(
    "trainer.steps trainer.lanes trainer.rungs trainer.log_every trainer.accumulate trainer.threads "
    "trainer.eval_batch_size search.trials search.lag confirm.seeds sweep.seed sweep.retries sweep.repeats "
    "task.steps task.batch_size hydra.launcher.workers"
)
NUMBERS = ("trainer.clip_norm", "trainer.divergence_factor", "confirm.delta", "optimizer.lr", "search.reruns")
TRUTHS = _words("trainer.deterministic suggest.deep suggest.unstable suggest.fine_tuning suggest.transfer_learning")
WORDS = _words("trainer.device trainer.precision search.sampler search.pruner weight_decay.mode weight_decay.apply_to")

NULL_IS_FINE = {
    "trainer.clip_norm",
    "confirm.delta",
    "optimizer.lr",
    "task.batch_size",
    "trainer.steps",
    "hydra.launcher.workers",
}


def values() -> Iterator[str]:
    """One wrong value of one known key each."""
    for key in WHOLES:
        wrong = chain(NO_NUMBERS, NO_WHOLES)
        yield from (f"{key}={v}" for v in wrong if not (v == "null" and key in NULL_IS_FINE))
    for key in NUMBERS:
        also = NOT_POSITIVE if key != "search.reruns" else ("0.6",)
        yield from (f"{key}={v}" for v in chain(NO_NUMBERS, also) if not (v == "null" and key in NULL_IS_FINE))
    for key in TRUTHS:
        yield from (f"{key}={v}" for v in NO_TRUTHS)
    for key in WORDS:
        yield from (f"{key}={v}" for v in NO_WORDS)


def quickly() -> list[str]:
    """Everything that is wrong in itself, whatever else is chosen."""
    found = list(values())
    found += [f"sweep.name={name}" for name in LISTED["sweep.name"]]
    found += [f"{key}={store}" for key in ("tracking.uri", "tracking.storage") for store in LISTED["store"]]
    found += [f"tracking.checkpoints={v}" for v in ("5", "[a]", "{a:b}", "''", "true", "s3://bucket", "~nobody_here/x")]
    found += [f"search.space.lr={space}" for space in LISTED["search.space.lr"]]
    found += [f"search.over={over}" for over in ("lr", "5", "null", "[1]", "{a:1}", "[[lr]]")]
    found += [
        f"{key}=5" for key in ("task", "sweep", "confirm", "search", "trainer", "tracking", "suggest", "hydra.launcher")
    ]
    found += [f"{key}=[1]" for key in ("sweep", "confirm", "trainer", "tracking", "suggest")]
    found += [f"trainer.checkpoint_seconds={v}" for v in (*NO_NUMBERS, "-1") if v != "null"]
    found += [f"task.resplit={v}" for v in NO_TRUTHS] + [f"sweep.baseline={v}" for v in ("5", "[a]", "{a:b}", "true")]
    found += [f"warmup.steps={v}" for v in ("-1", "two", "nan", "2.5", "[1]", "true", "10", "1.0", "inf")]
    wrong = ("5", "[a]", "{a:b}", "null", "''", "'a\u202eb'", "x" * 101)
    found += [f"{key}={v}" for key in ("task.name", "optimizer.name", "schedule.name") for v in wrong]
    found += [f"{key}={v}" for key in ("task._target_", "optimizer._target_") for v in ("5", "[a]", "{a:b}", "null")]
    return list(dict.fromkeys(found))


NOTHING_RAN = AssertionError("it was not refused")


def write_files(folder: Path) -> None:
    """Config files and modules that are wrong, each in its way."""
    tasks = folder / "conf" / "task"
    tasks.mkdir(parents=True)
    (tasks / "folder").mkdir()
    (folder / "blocked").write_text("a file where a folder is wanted")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    texts = {
        "scalar": "5\n",
        "alist": "- 1\n",
        "alias": "name: own\nx: &a\n  y: *a\n",
        "circle": "defaults: [round]\nname: a\n",
        "round": "defaults: [circle]\n",
        "itself": "defaults:\n  - itself\nname: a\n",
        "bomb": "\n".join(lines) + "\n",
        "tab": "name: own\n\t_target_: x\n",
        "twice": "name: a\nname: b\n",
        "unclosed": "name: [own\n",
        "empty": "",
        "nothing": "null\n",
        "tag": "name: !!python/object/apply:os.system ['touch evil']\n",
        "deep": "name: " + "[" * 900 + "]" * 900 + "\n",
        "asked": "name: own\n_target_: ???\nbatch_size: 2\nsteps: 5\n",
        "nameless": "_target_: fn.nothing\nbatch_size: 2\nsteps: 5\n",
    }
    for name, text in texts.items():
        (tasks / f"{name}.yaml").write_text(text)
    for name, content in {
        "latin": "name: é\n".encode("latin-1"),
        "utf16": "name: own\n".encode("utf-16"),
        "binary": bytes(range(256)),
    }.items():
        (tasks / f"{name}.yaml").write_bytes(content)
    modules = {
        "syntax": b"def f(:\n",
        "raises": b"raise RuntimeError('no')\n",
        "quits": b"import sys\nsys.exit(3)\n",
        "latin": "x = 'é'\n".encode("latin-1"),
        "nul": b"x = 1\0\n",
        "fn": b"import sys\nnumber = 5\ndef raises(): raise RuntimeError('no')\ndef looks_up(): return {}['x']\n"
        b"def quits(): sys.exit(2)\ndef nothing(): return None\ndef needs(it): return it\n",
    }
    for name, content in modules.items():
        (folder / f"{name}.py").write_bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder, with room above it for names that lead out; nothing is ever trained in it."""
    found = tmp_path_factory.mktemp("room") / "a" / "folder"
    found.mkdir(parents=True)
    write_files(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(found)
        patch.setattr(sweep, "_seat", lambda *_, **__: (_ for _ in ()).throw(NOTHING_RAN))
        yield found
        for name in ("syntax", "raises", "quits", "latin", "nul", "fn"):
            sys.modules.pop(name, None)


def files(folder: Path) -> dict[str, tuple[int, int] | None]:
    """All that lies in the folder and in the two above it."""
    room = folder.parent.parent
    found = {str(path): path.stat() for path in room.rglob("*")}
    return {path: (s.st_size, s.st_mtime_ns) if S_ISREG(s.st_mode) else None for path, s in found.items()}


def refuse(
    arguments: Sequence[str], about: Sequence[str], folder: Path, capfd: pytest.CaptureFixture[str]
) -> str | None:
    """Why a command is not refused as it should be; None if it is."""
    before = files(folder)
    code = run(arguments)
    out, err = capfd.readouterr()
    lines = err.strip().splitlines()
    if code != 2 or not err.startswith("optsweep: "):
        return f"{arguments}: code {code}, {err!r}"
    if len(lines) > 3 or "Traceback" in out + err or len(err) > 2500:
        return f"{arguments}: {len(lines)} lines: {err[:300]!r}"
    if about and not any(word in err for word in about):
        return f"{arguments}: none of {about} is named in {err!r}"
    if any(inside in err for inside in ("provider=", "hydra.cc", "full_key", "<class", "omegaconf")):
        return f"{arguments}: {err!r} speaks of what is inside"
    if any(not (c.isprintable() or c == "\n") for c in err):
        return f"{arguments}: {err!r} is not printable"
    return f"{arguments} has written" if files(folder) != before else None


def check(inputs: Sequence[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of each its last key is named, or the file that its value is."""
    wrong = []
    for line in inputs:
        given, _, about = line.partition(" => ")
        arguments = given.split(" ")
        keys = {argument.partition("=")[0].lstrip("+~") for argument in arguments}
        base = [argument for argument in BASE if argument.partition("=")[0] not in keys]
        key, _, value = arguments[-1].lstrip("+~").partition("=")
        named = [about] if about else [key, f"conf/task/{value}.yaml", f"{value.partition('.')[0]}.py"]
        wrong.append(refuse([*base, *arguments], named, folder, capfd))
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.fixture
def quick(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Config composed once: a value of a known key is set in a copy."""
    whole = compose(BASE)

    def set_only(overrides: Sequence[str], *_: object) -> DictConfig:
        config = whole.copy()
        for override in OverridesParser.create().parse_overrides(opened(overrides[-1:])):
            with open_dict(config):
                OmegaConf.update(config, override.key_or_group, override.value(), merge=False, force_add=True)
        return config

    monkeypatch.setattr(doorman, "compose", set_only)


def test_there_are_five_hundred_inputs() -> None:
    assert (
        len(quickly()) + len(LISTED["grammar"]) + len(LISTED["flags"]) + len(LISTED["composed"]) + len(LISTED["built"])
        >= 500
    )


def test_values(folder: Path, quick: None, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = [
        found for given in quickly() if (found := refuse([*BASE, given], [given.partition("=")[0]], folder, capfd))
    ]
    assert not wrong, "\n".join(wrong)


def test_grammar(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = [found for given in LISTED["grammar"] if (found := refuse([given], [], folder, capfd))]
    assert not wrong, "\n".join(wrong)


def test_flags(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = [found for given in LISTED["flags"] if (found := refuse(given.split(" "), [], folder, capfd))]
    assert not wrong, "\n".join(wrong)


def test_keys_and_files(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check(LISTED["composed"], folder, capfd)


def test_code_and_combinations(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only building finds. Hydra would compose the same config three times more on the way there."""
    composed: list[DictConfig] = []

    def remembered(overrides: Sequence[str], *rest: Any) -> DictConfig:
        composed.append(compose(overrides, *rest))
        return composed[-1]

    monkeypatch.setattr(doorman, "compose", remembered)
    monkeypatch.setattr(
        doorman, "_main", lambda command: sweep.run_sweep([arm_of(composed[-1], command.axes)], workers=0)
    )
    check(LISTED["built"], folder, capfd)


KEYS = st.sampled_from(
    [*WHOLES, *NUMBERS, *TRUTHS, *WORDS, "sweep.name", "tracking.uri", "search.space.lr", "task._target_"]
)
TYPED = (
    st.text(max_size=12) | st.integers().map(str) | st.floats().map(str) | st.lists(st.integers(), max_size=2).map(str)
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS, value=TYPED)
def test_whatever_is_typed(
    folder: Path, quick: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    """It is taken, or refused in a line: never a traceback, never a byte before it is taken."""
    monkeypatch.setattr(doorman, "_main", lambda _: None)  # taken: what follows would run
    before = files(folder)
    code = run([*BASE, f"{key}={value}"])
    err = capfd.readouterr().err
    assert code in (0, 2)
    assert files(folder) == before
    assert (code == 2) == err.startswith("optsweep: ")
    assert err.count("\n") <= 1


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    here = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-m", "optsweep", *arguments], capture_output=True, env=here, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_dashes(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = command("--help", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (told.returncode, told.stderr) == (0, b"")
    assert b"suggest KEY=VALUE ? " in told.stdout
    refused = command("optimizer=null – é", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert refused.returncode == 2
    assert re.fullmatch(rb"optsweep: [^\n]+\n", refused.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_gone() -> None:
    """`optsweep --help | true` says nothing about pipes."""
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, "-m", "optsweep", "--help"]
    done = subprocess.run(arguments, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
