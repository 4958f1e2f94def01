"""docs/gallery/: every sweep has its entry, its readings find their arms, and the pages are what the results give."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import gallery
import gallery_readings as readings
import pytest
import yaml
from gallery_pages import CONTENT

from drive import CONF
from hand_results import LESS, SAME, arm, comparison, group, results, two
from optsweep.config.arm import GROUPS
from optsweep.config.compose import compose
from optsweep.inference import groups
from optsweep.launch.prepare.labels import NamedArm, meant

SWEEPS = CONF.parent / "sweeps"


def test_every_sweep_has_an_entry_and_the_committed_pages_are_what_the_results_give() -> None:
    assert gallery.problems() == []


def test_entries_say_everything_and_their_readings_exist() -> None:
    for entry in CONTENT["entries"]:
        assert entry.keys() == {"sweep", "theme", "question", "claim", "expected", "reading", "differs", "figures"}
        assert {"id", "text", "source"} <= entry["claim"].keys() <= {"id", "text", "source", "setting"}
        assert entry["question"].endswith("?")
        assert entry["differs"].endswith(".")
        assert 1 <= len(entry["figures"]) <= 3
        assert all(reading["kind"] in readings.READINGS for reading in entry["reading"])
    assert set(CONTENT["outcomes"]) == {held.value for held in readings.Held}


def arms_of(sweep: str) -> tuple[list[NamedArm], str]:
    """A sweep's arms and the name of its baseline; composed once, since every arm would take a quarter of a second."""
    config = compose([], sweep)
    chosen = {key: str(config.hydra.runtime.choices.get(key, "none")) for key in GROUPS}
    axes = {str(key): str(values).split(",") for key, values in config.hydra.sweeper.params.items()}
    found = []
    for values in product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        recipe = yaml.safe_load((CONF / "recipe" / f"{cell.get('recipe', 'none')}.yaml").read_text()) or {}
        override = {key.removeprefix("override /"): v for each in recipe.get("defaults", []) for key, v in each.items()}
        combination = {key: value for key, value in {**chosen, **override, **cell}.items() if value != "none"}
        name = " ".join(f"{key}={value}" for key, value in combination.items())
        found.append(NamedArm(name, name, combination))
    baseline = meant(found, config.sweep.baseline)
    assert baseline is not None
    return found, baseline


@pytest.mark.parametrize("name", sorted(path.stem for path in SWEEPS.glob("*.yaml")))
def test_readings_find_their_arms_in_what_the_sweep_would_run(name: str) -> None:
    (note,) = (note for note in CONTENT["entries"] if note["sweep"] == name)
    planned, baseline = arms_of(name)
    found = [
        group(
            *(
                arm(one.name, LESS, choices=one.choices, state_bytes=1.0)
                for one in sorted(peers.arms, key=lambda one: one is not peers.baseline)
            ),
            comparisons=[
                comparison(one.name, peers.baseline.name, SAME) for one in peers.arms if one is not peers.baseline
            ],
            setting=peers.setting,
            title=str(peers.setting),
        )
        for peers in groups.group(planned, baseline)
    ]
    over_all = {
        "baseline": "",
        "arms": [{"label": one["label"], "outcomes": {}, "mean_rank": None} for one in found[0]["arms"]],
        "tasks": [{"group": found[0]["title"], "arms": [one["name"] for one in found[0]["arms"]]}],
    }
    answers = readings.answers(results(*found, tasks=[over_all]), note["reading"])
    assert len(answers) >= len(note["reading"])
    assert all("can't be compared" not in answer.sentence for answer in answers)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Reports of one sweep, with a picture."""
    from PIL import Image

    found = two(LESS)
    found["groups"][0]["arms"][0]["choices"]["optimizer.lr"] = "0.3"
    names = ("0.001", "10.0")
    found["groups"][0]["arms"] += [
        {**copy.deepcopy(found["groups"][0]["arms"][1]), "name": name, "choices": {"optimizer.lr": name}}
        for name in names
    ]
    found["figures"] = [{"name": "val_loss", "title": "Loss", "caption": "A <line>.", "alt": "falls [fast]"}]
    folder = tmp_path / "reports" / "fixed_lr"
    (folder / "figures").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(found), encoding="utf-8")
    Image.new("RGB", (40, 30), "white").save(folder / "figures" / "val_loss.png")
    return tmp_path / "reports"


def test_build_writes_pages_that_check_finds_right(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    where = ["--reports", str(reports), "--out", str(out)]
    assert gallery.main(where) == 2
    assert "no results of lr_basin, " in capsys.readouterr().err
    assert gallery.main([*where, "--partial"]) == 0
    page, text = ((out / name).read_text(encoding="utf-8") for name in ("index.html", "README.md"))
    assert 'src="figures/fixed_lr-val_loss.png" alt="falls [fast]" loading="lazy" width="40" height="30"' in page
    assert "Old &lt;Mill&gt;" in page
    assert "A &lt;line&gt;." in page
    assert "not run yet" in page
    assert "![Loss: falls (fast)](figures/fixed_lr-val_loss.png)" in text
    assert f"1 of {len(CONTENT['entries'])} sweeps" in text
    assert "2001-09-09" in text
    assert gallery.main(["--check", "--out", str(out)]) == 0
    (out / "README.md").write_text(text + "typed in", encoding="utf-8")
    (out / "figures" / "old.png").write_bytes((out / "figures" / "fixed_lr-val_loss.png").read_bytes())
    assert gallery.problems(out) == [
        "figures/old.png is shown nowhere",
        "README.md is stale: run `python docs/gallery.py --pages`",
    ]
    assert gallery.main(["--pages", "--out", str(out)]) == 0
    assert (out / "README.md").read_text(encoding="utf-8") == text


def test_a_gallery_that_is_too_large_is_refused(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gallery, "MOST_BYTES", 1000)
    assert gallery.main(["--reports", str(reports), "--out", str(tmp_path / "out"), "--partial"]) == 1
    assert "show fewer figures" in capsys.readouterr().err


def test_a_failed_sweep_does_not_stop_the_others(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = []

    class Ended:
        def __init__(self, command: Sequence[str], **_: Any) -> None:
            called.append(command[-1])
            self.returncode = 3 if command[-1] == "fixed_lr" else 0

    monkeypatch.setattr("gallery.subprocess.run", Ended)
    where = ["--reports", str(reports), "--out", str(tmp_path / "out")]
    assert gallery.main(["--run", "fixed_lr", "warmup", *where]) == 1
    assert called == ["fixed_lr", "warmup"]
    assert "failed: fixed_lr" in capsys.readouterr().err
    assert gallery.main(["--run", "warmup", *where]) == 0
    assert gallery.main(["--run", "warmap", *where]) == 2
