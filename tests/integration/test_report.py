"""Reports of made-up sweeps in a real MLflow store: what is written, what is refused, what no name may break."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow.tracking import MlflowClient

from optsweep.errors import UserError
from optsweep.report import Report, SweepNotFound, helpers, write_report
from optsweep.report.figures import canvas
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.schema import ARM_FILE, SWEEP_FILE
from optsweep.tracking.writer import Tracker
from synthetic_store import DEFAULT, FakeArm, arm, fill

HOSTILE = "<script>alert('x')</script> a/b λ→∞ $\\frac{1}{2}$ \"&amp;"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making its schema takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    fill(uri, "demo", trials=10, seeds=6)
    return uri


@pytest.fixture(scope="session")
def demo(store: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report(store, ["demo"], tmp_path_factory.mktemp("report") / "demo")


class _Page(HTMLParser):
    """What a page refers to, and the ids it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: Counter[str] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            elif key in ("href", "xlink:href") and tag == "a":
                self.links.append(value or "")
            elif key in ("src", "href", "xlink:href", "data", "srcset", "action", "poster"):
                self.fetched.append(value or "")


def test_folder_has_all_that_is_promised(demo: Report) -> None:
    folder = demo.index.parent
    content = json.loads((folder / "results.json").read_text())
    drawn = {path.name for path in (folder / "figures").iterdir()}
    listed = {figure["name"] for figure in content["figures"]}
    assert drawn == {f"{name}.{kind}" for name in listed for kind in ("png", "svg")}
    assert all(figure["title"] and figure["caption"] and figure["alt"] for figure in content["figures"])
    assert {"val_loss", "learning_rate", "lr_sensitivity", "lr_decay", "test_loss", "cost", "difference"} <= listed
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (10 + 6)
    assert {row["phase"] for row in rows} == {"search", "confirm"}
    assert all(row["run_id"] for row in rows)


def test_page_is_one_file_that_fetches_nothing(demo: Report) -> None:
    text = demo.index.read_text()
    page = _Page(text)
    assert all(url.startswith(("#", "data:")) for url in page.fetched)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text)
    assert page.tags["h1"] == 1
    assert page.tags["title"] >= 1
    assert not [name for name, count in Counter(page.ids).items() if count > 1]
    referred = set(re.findall(r"url\(#([^)]+)\)", text)) | {url[1:] for url in page.fetched if url.startswith("#")}
    assert referred <= set(page.ids)


def test_page_states_the_verdict_and_links_every_run(demo: Report, store: str) -> None:
    page = _Page(demo.index.read_text())
    assert demo.verdicts[0].startswith(
        "On charlm, at the settings that this search chose, soap + schedule_free ends lower than adamw + cosine"
    )
    assert "soap + schedule_free is not bracketed (lr on the high side)" in demo.verdicts[0]
    assert not demo.partial
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    runs = {run.info.run_id for run in client.search_runs([experiment.experiment_id])}
    linked = {url.rpartition("/")[2].partition("?")[0] for url in page.links if "/runs/" in url}
    assert linked == runs
    one = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs/{next(iter(runs))}"
    assert f"{one}?workflowType=machine_learning" in page.links


def test_every_number_of_the_arms_links_to_the_runs_it_is_made_of(demo: Report) -> None:
    text = demo.index.read_text()
    table = re.search(r'aria-label="Table of arms".*?</table>', text, re.DOTALL)
    assert table is not None
    cells = re.findall(r'<td class="num[^"]*"[^>]*>(?:<span>)?(.*?)</td>', table.group(0), re.DOTALL)
    assert len(cells) == 2 * 10
    assert all(cell.startswith("<a ") or not re.search(r"\d", cell) for cell in cells)
    arms = json.loads((demo.index.parent / "results.json").read_text())["groups"][0]["arms"]
    of_seeds = [[trial["run_id"] for trial in arm["confirm"]] for arm in arms]
    compared = [
        json.loads(parse_qs(urlsplit(url.replace("#", "")).query)["runs"][0])
        for url in _Page(table.group(0)).links
        if "/compare-runs?" in url
    ]
    assert {tuple(runs) for runs in compared} == {
        *map(tuple, of_seeds),
        tuple(run for runs in of_seeds for run in runs),
    }


def test_page_holds_its_curves_as_numbers_its_own_script_and_the_licence_of_what_it_carries(demo: Report) -> None:
    text = demo.index.read_text()
    assert len(text) < 1_500_000
    held = re.search(r'<script type="application/json" id="curves">(.*?)</script>', text, re.DOTALL)
    assert held is not None
    group = json.loads(held[1])["g1"]
    assert [(arm["label"], arm["baseline"]) for arm in group["arms"]] == [
        ("soap + schedule_free", False),
        ("adamw + cosine", True),
    ]
    assert set(group["figures"]) == {"val_loss", "val_loss_seconds", "train_loss", "learning_rate"}
    val = group["figures"]["val_loss"]
    assert {len(val["x"])} == {len(line[key]) for line in val["lines"] for key in ("y", "half")}
    assert (val["xLabel"], val["yLabel"]) == ("optimizer steps", "validation loss (nats)")
    assert {line["n"] for line in val["lines"]} == {"6 seeds"}
    allowed = re.search(r"script-src 'sha256-([^']+)'", text)
    (code,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert allowed is not None
    assert allowed[1] == base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert "The MIT License (MIT)\n\nCopyright (c) 2022 Leon Sorokin" in code


def test_bibtex_of_what_ran_is_on_the_page_and_beside_it(demo: Report) -> None:
    found = (demo.index.parent / "references.bib").read_text()
    keys = set(re.findall(r"@\w+\{(\w+),", found))
    assert {"vyas2024", "defazio2024", "loshchilov2017", "vaswani2017", "goyal2017", "zaharia2018"} <= keys
    assert not {"chen2023", "krizhevsky2009", "holm1979"} & keys, "neither Lion nor CIFAR-10 nor two tests ran"
    assert html.escape(found, quote=False).strip() in demo.index.read_text().replace("&#39;", "'").replace("&#34;", '"')


def test_rows_for_the_terminal(demo: Report) -> None:
    assert [len(row) for row in demo.rows] == [len(demo.columns)] * 2
    assert demo.rows[1][1] == "adamw + cosine (baseline)", "the lowest loss first"
    assert demo.rows[0][2] == "0.03!"


def test_rebuilding_gives_the_same_bytes(demo: Report, store: str, tmp_path: Path) -> None:
    again = write_report(store, ["demo"], tmp_path, attach=False)
    for name in ("results.json", "results.csv", "index.html", "figures/val_loss.svg"):
        assert (again.index.parent / name).read_bytes() == (demo.index.parent / name).read_bytes()


def test_report_is_attached_to_the_sweeps_run(demo: Report, store: str) -> None:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{names.KIND}` = 'sweep'")
    assert {item.path for item in client.list_artifacts(run.info.run_id, "report")} == {
        f"report/{name}" for name in ("index.html", "results.json", "results.csv", "references.bib", "figures")
    }


def test_every_number_of_the_table_is_in_the_json(demo: Report) -> None:
    content = json.loads((demo.index.parent / "results.json").read_text())
    (group,) = content["groups"]
    comparison = group["comparisons"][0]
    losses = [[trial["metrics"][names.TEST_LOSS] for trial in arm["confirm"]] for arm in group["arms"]]
    mean = sum(b - a for a, b in zip(*losses, strict=True)) / 6
    assert comparison["paired_t"]["mean"] == pytest.approx(mean)
    assert " ".join((comparison["sentence"], *group["conditions"])) == demo.verdicts[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are planned but not drawn: most of a report's time, and not what the test is about."""

    def save(plan: canvas.FigurePlan, prefix: str, folder: Path, *, pdf: bool) -> canvas.Drawing:
        known = plan.title, plan.caption, plan.alt
        return canvas.Drawing(prefix + plan.name, *known, "<svg></svg>", plan.wide, plan.touch)

    monkeypatch.setattr(canvas, "save", save)


def test_names_are_escaped_everywhere(store: str, tmp_path: Path) -> None:
    arms = (
        arm("t", "adamw", "cosine", name=HOSTILE, warnings=[HOSTILE], choices={"task": HOSTILE, HOSTILE: HOSTILE}),
        arm("t", "_soap", "<b>$x$</b>", name="second", confirm_status=[Status.CRASHED], choices={"task": HOSTILE}),
    )
    fill(store, HOSTILE, arms, trials=4, seeds=3)
    report = write_report(store, [HOSTILE], tmp_path, attach=False)
    text = report.index.read_text()
    page = _Page(text)
    assert page.tags["script"] == 2, "data and code"
    assert "<b>$x$" not in text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in text
    assert json.loads((tmp_path / "results.json").read_text())["groups"][0]["arms"][0]["name"] == HOSTILE
    assert "tried to allocate &lt;2 GiB&gt;" in text


@pytest.mark.usefixtures("quick")
def test_several_tasks_and_several_sweeps(store: str, tmp_path: Path) -> None:
    arms = [
        arm(task, o, "cosine", final=2 + i / 10) for task in ("a", "b") for i, o in enumerate(("adamw", "sgd", "x"))
    ]
    fill(store, "tasks", arms, trials=2, seeds=3)
    report = write_report(store, ["tasks", "demo"], tmp_path)
    assert len(report.verdicts) == 1 + 3  # over the two tasks first
    assert [row[0] for row in report.rows] == ["a"] * 3 + ["b"] * 3 + ["charlm"] * 2
    page = _Page(report.index.read_text())
    assert page.tags["article"] == 1 + 3
    assert not [name for name, count in Counter(page.ids).items() if count > 1]


@pytest.mark.usefixtures("quick")
def test_findings_across_groups(store: str, tmp_path: Path) -> None:
    """Two tasks of hostile names, two run lengths each: named safely, and the same bytes again."""
    tasks = (HOSTILE, "ä/../b")
    arms = [
        arm(task, o, s, choices={"trainer.steps": steps}, final=final, decays_late=s == "cosine")
        for task in tasks
        for steps in ("100", "400")
        for o, s, final in (("adamw", "cosine", 2.1), ("<b>soap</b>", "schedule_free", 2.0))
    ]
    fill(store, "across", arms, trials=2, seeds=3)
    report = write_report(store, ["across"], tmp_path / "one", attach=False)
    text = report.index.read_text()
    page = _Page(text)
    assert "<b>soap" not in text
    assert not [name for name, count in Counter(page.ids).items() if count > 1]
    assert text.index('id="verdict"') < text.index('id="across"') < text.index('id="arms"')
    content = json.loads((tmp_path / "one" / "results.json").read_text())["across"]
    assert [found["lengths"] for found in content["run_lengths"]] == [[100, 400]] * 2
    assert [task["task"] for task in content["tasks"][0]["tasks"]] == list(tasks)
    said = [sentence for found in (*content["run_lengths"], *content["tasks"]) for sentence in found["sentences"]]
    assert " ".join(report.verdicts[:3]) == " ".join(said)
    write_report(store, ["across"], tmp_path / "two", attach=False)
    assert (tmp_path / "one" / "results.json").read_bytes() == (tmp_path / "two" / "results.json").read_bytes()


def test_one_group_has_no_section_across(demo: Report) -> None:
    assert 'id="across"' not in demo.index.read_text()
    content = json.loads((demo.index.parent / "results.json").read_text())
    assert content["across"] == {"run_lengths": [], "tasks": [], "factorials": []}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "arms", "seeds", "expected"),
    [
        ("one-arm", DEFAULT[:1], 3, "there is one arm"),
        ("one-seed", DEFAULT, 1, "shows nothing yet"),
        ("no-confirm", DEFAULT, 0, "no confirm seeds were asked for"),
        ("lost", [arm("t", o, "s", confirm_status=[Status.DIVERGED] * 2) for o in "ab"], 2, "diverged on all 2 seeds"),
        ("a/b ü <i>λ</i>", DEFAULT[:1], 2, "a/b ü &lt;i&gt;λ&lt;/i&gt;"),
        ("nothing", (), 2, "No arm has started"),
    ],
)
def test_sweeps_without_a_comparison(
    store: str, tmp_path: Path, name: str, arms: Sequence[FakeArm], seeds: int, expected: str
) -> None:
    fill(store, name, arms, trials=2, seeds=seeds, baseline="?")
    report = write_report(store, [name], tmp_path, attach=False)
    assert expected in report.index.read_text()


def test_several_processes_draw_what_one_draws(store: str, tmp_path: Path) -> None:
    fill(
        store,
        "many",
        [arm(task, of, "cosine") for task in "ab" for of in ("adamw", "lion", "muon", "soap")],
        trials=3,
        seeds=2,
    )
    for folder, processes in (("by-several", 2), ("by-one", 1)):
        with helpers(processes) as helped:
            write_report(store, ["many"], tmp_path / folder, attach=False, helped=helped)
    files = {path.relative_to(tmp_path / "by-one") for path in (tmp_path / "by-one").rglob("*") if path.is_file()}
    assert len({path.name[:2] for path in files if path.suffix == ".svg"}) >= 2
    for file in files:
        assert (tmp_path / "by-several" / file).read_bytes() == (tmp_path / "by-one" / file).read_bytes()


@pytest.mark.usefixtures("quick")
def test_running_sweep_is_marked_as_partial(store: str, tmp_path: Path) -> None:
    arms = (
        DEFAULT[0],
        arm("charlm", "muon", "wsd", chosen=False, confirm_seeds=0),
        arm("charlm", "lion", "wsd", confirm_status=[Status.FINISHED, Status.RUNNING]),
    )
    fill(store, "running", arms, trials=3, seeds=2, absent=["later"])
    report = write_report(store, ["running"], tmp_path, attach=False)
    assert report.partial
    text = report.index.read_text()
    assert "Partial: later has not started." in text
    assert "Partial: muon + wsd still lacks 2 confirm trials." in text
    assert "Partial: lion + wsd still lacks 1 confirm trial." in text


def test_unknown_sweeps_are_refused_by_name(store: str, tmp_path: Path) -> None:
    with pytest.raises(SweepNotFound, match="there is no sweep 'demmo'; nearest: demo"):
        write_report(store, ["demmo"], tmp_path)
    client = MlflowClient(store)
    client.create_experiment("foreign")
    with pytest.raises(SweepNotFound, match="is no sweep"):
        write_report(store, ["foreign"], tmp_path)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(SweepNotFound, match="was deleted; `mlflow experiments restore"):
        write_report(store, ["gone"], tmp_path)
    with pytest.raises(SweepNotFound, match="name at least one"):
        write_report(store, [], tmp_path)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SweepNotFound, match="there is no store"):
        write_report(f"sqlite:///{tmp_path}/none/mlflow.db", ["demo"], tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_a_slot_that_ran_twice_counts_once(store: str, tmp_path: Path) -> None:
    fill(store, "twice", DEFAULT, trials=2, seeds=2)
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("twice")
    assert experiment is not None
    found = f"tags.`{names.PHASE}` = 'confirm' and params.slot = '0'"
    run = client.search_runs([experiment.experiment_id], found)[0]
    tags = {**run.data.tags, names.STATUS: Status.CRASHED.value}
    client.create_run(experiment.experiment_id, start_time=1, tags=tags)  # an earlier try
    report = write_report(store, ["twice"], tmp_path, attach=False)
    content = json.loads((tmp_path / "results.json").read_text())
    assert [len(held["confirm"]) for held in content["groups"][0]["arms"]] == [2, 2]
    assert all("crashed" not in row[-1] for row in report.rows)


@pytest.mark.usefixtures("quick")
def test_an_arm_whose_sheet_is_broken_is_a_caveat(store: str, tmp_path: Path) -> None:
    fill(store, "cut", DEFAULT, trials=2, seeds=2)
    tracker = Tracker(store, "cut")
    arm_run, sweep_run = tracker.arm_run(DEFAULT[1].name, ""), tracker.sweep_run()
    tracker.log_text(arm_run, '{"name": "', ARM_FILE)
    write_report(store, ["cut"], tmp_path, attach=False)
    text = (tmp_path / "index.html").read_text()
    assert f"{DEFAULT[1].label}: {ARM_FILE} of its run could not be read." in text
    assert DEFAULT[0].label in text
    tracker.log_text(sweep_run, '{"plan": {"seed": "one"}}', SWEEP_FILE)
    with pytest.raises(UserError, match=r"broken optsweep/sweep\.json: SweepSheet\.plan\.seed is 'one'"):
        write_report(store, ["cut"], tmp_path, attach=False)


@pytest.mark.usefixtures("quick")
def test_old_figures_go_and_other_files_stay(store: str, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("old.png", "mine.png"):
        (tmp_path / "figures" / name).write_text("")
    (tmp_path / "results.json").write_text(json.dumps({"figures": ["old", "../../etc"]}))
    fill(store, "few", DEFAULT[:1], trials=2, seeds=0)
    write_report(store, ["few"], tmp_path, attach=False)
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "old.png" not in left
    assert "mine.png" in left
