"""The text of the gallery: index.html and README.md from gallery.yaml and the sweeps' results.json, nothing else.

Every number comes from the results; gallery.yaml has the questions, the claims and their sources.
"""

from __future__ import annotations

import fnmatch
import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from gallery_readings import Answer, Held, NotFound, Results, answers, overall
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import optsweep.report
from optsweep.report.wording import duration, listed, plural, size

DOCS = Path(__file__).resolve().parent
CONTENT: Mapping[str, Any] = yaml.safe_load((DOCS / "gallery.yaml").read_text(encoding="utf-8"))
"""Introduction, what the outcomes mean, and the entries."""

MOST_FIGURES = 4  # of an entry

_BADGES = {Held.HELD: "good", Held.PART: "open", Held.OPEN: "same", Held.FAILED: "bad", Held.REVERSE: "bad"}
_SIGNS = {Held.HELD: "✓", Held.PART: "◐", Held.OPEN: "○", Held.FAILED: "✗", Held.REVERSE: "✗"}


@dataclass(frozen=True)
class Picture:
    """A figure of a report, as a file of the gallery."""

    name: str  # in the report
    file: str  # in the gallery's figures/
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Entry:
    """An entry of gallery.yaml with what its sweep answered; without results, nothing but the question."""

    note: Mapping[str, Any]
    results: Results | None

    @property
    def sweep(self) -> str:
        """Name of the sweep."""
        return str(self.note["sweep"])

    @cached_property
    def answers(self) -> list[Answer]:
        """One per reading and group. Raises NotFound, which names the sweep, where results and readings don't fit."""
        try:
            return answers(self.results, self.note["reading"]) if self.results else []
        except NotFound as problem:
            raise NotFound(f"{self.sweep}: {problem}") from None

    @property
    def held(self) -> Held | None:
        """One word for all answers; None if the sweep has not run."""
        return overall(answer.held for answer in self.answers) if self.results else None

    @cached_property
    def pictures(self) -> list[Picture]:
        """The figures that the entry asks for and the report has."""
        listed_figures = self.results["figures"] if self.results else []
        found: dict[str, Picture] = {}
        for pattern in self.note["figures"]:
            for figure in listed_figures:
                if fnmatch.fnmatchcase(figure["name"], pattern):
                    found.setdefault(figure["name"], self._picture(figure))
        return list(found.values())[:MOST_FIGURES]

    @property
    def absent(self) -> list[str]:
        """Figures that the entry asks for and the report doesn't have."""
        names = [figure["name"] for figure in self.results["figures"]] if self.results else []
        return [pattern for pattern in self.note["figures"] if not fnmatch.filter(names, pattern)]

    def _picture(self, figure: Mapping[str, str]) -> Picture:
        title = figure["title"]
        if (number := re.match(r"(\d+)-", figure["name"])) and self.results and len(self.results["groups"]) > 1:
            title = f"{title} ({self.results['groups'][int(number[1]) - 1]['title']})"
        file = f"{self.sweep}-{figure['name']}.png"
        return Picture(figure["name"], file, title, figure["caption"], figure["alt"])

    @property
    def partial(self) -> bool:
        """Whether planned trials are missing."""
        return bool(self.results and self.results["partial"])

    @property
    def command(self) -> str:
        """What was typed."""
        return str(self.results["sweeps"][0]["command"] if self.results else f"optsweep -cn {self.sweep}")

    @property
    def environment(self) -> Mapping[str, Any]:
        """Machine and versions."""
        return dict(self.results["sweeps"][0]["environment"]) if self.results else {}

    @property
    def scale(self) -> str:
        """On what it ran, beside claims that were measured on GPUs."""
        device = str(self.environment.get("device") or "cpu")
        return "at the scale of a CPU" if device == "cpu" else f"on {device}"

    @property
    def sessions(self) -> list[Mapping[str, Any]]:
        """Calls that have ended."""
        return [s for s in self.results["sweeps"][0]["sessions"] if s.get("end")] if self.results else []

    @property
    def seconds(self) -> float:
        """From start to end of all calls."""
        return sum(float(session["end"]) - float(session["start"]) for session in self.sessions)

    @property
    def num_trials(self) -> int:
        """Trials that have ended, search and confirm."""
        counts = [phase for group in self._groups for arm in group["arms"] for phase in arm["trials"].values()]
        return sum(count for phase in counts for status, count in phase.items() if status != "running")

    @property
    def _groups(self) -> Sequence[Mapping[str, Any]]:
        return self.results["groups"] if self.results else []

    @property
    def facts(self) -> list[str]:
        """Arms, trials, seeds and time in a few words."""
        arms = [arm for group in self._groups for arm in group["arms"]]
        seeds = sorted({len(arm["confirm"]) for arm in arms})
        said = [plural(len(arms), "arm"), plural(self.num_trials, "trial")]
        if seeds:
            said.append(plural(seeds[-1], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds")
        return [*said, duration(self.seconds)] if self.results else []

    @property
    def verdicts(self) -> list[str]:
        """What the report says of each group, and across them."""
        across = self.results["across"] if self.results else {}
        over = [" ".join(found["sentences"]) for kind in ("run_lengths", "tasks") for found in across.get(kind, ())]
        return [*over, *(" ".join(filter(None, _said(group))) for group in self._groups)]

    @property
    def caveats(self) -> list[str]:
        """What the report warns of, each once; of several groups with the group's title."""
        found: dict[str, list[str]] = {}
        for group in self._groups:
            for caveat in group["caveats"]:
                found.setdefault(caveat, []).append(group["title"])
        if len(self._groups) < 2:
            return list(found)
        return [
            caveat if len(titles) == len(self._groups) else f"{listed(titles)}: {caveat}"
            for caveat, titles in found.items()
        ]


def _said(group: Mapping[str, Any]) -> list[str]:
    return [group["headline"], group["ranking"], *group.get("conditions", ()), group.get("budget", "")]


def entries(results: Mapping[str, Results]) -> list[Entry]:
    """All entries, in the order of gallery.yaml."""
    return [Entry(note, results.get(note["sweep"])) for note in CONTENT["entries"]]


# -- what stands at the top --------------------------------------------------------------------------------------------


def machines(shown: Iterable[Entry]) -> list[str]:
    """The machines and versions, each with its sweeps if there are several."""
    found: dict[str, list[str]] = {}
    for entry in shown:
        if entry.results:
            found.setdefault(_machine(entry.environment), []).append(entry.sweep)
    if len(found) < 2:
        return list(found)
    return [f"{listed(sweeps)}: {machine}" for machine, sweeps in found.items()]


def _machine(environment: Mapping[str, Any]) -> str:
    parts = [str(environment.get("device") or "")]
    cores = environment.get("cores")
    parts.append(
        f"{plural(cores, 'core')} of {environment.get('processor') or 'an unnamed processor'}" if cores else ""
    )
    parts.append(size(environment["memory_bytes"]) if environment.get("memory_bytes") else "")
    parts.append(str(environment.get("platform") or ""))
    parts.append(f"Python {environment['python']}" if environment.get("python") else "")
    parts += [f"{name} {version}" for name, version in sorted((environment.get("packages") or {}).items())]
    return ", ".join(part for part in parts if part)


def span_of_days(shown: Iterable[Entry]) -> str:
    """ "2026-11-23", or the first and the last day on which something ran."""
    days = sorted({_day(session["end"]) for entry in shown for session in entry.sessions})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else "–"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d")


def totals(shown: Sequence[Entry]) -> list[str]:
    """How much ran, and how long it took."""
    ran = [entry for entry in shown if entry.results]
    sweeps = plural(len(ran), "sweep") if len(ran) == len(shown) else f"{len(ran)} of {plural(len(shown), 'sweep')}"
    trials = plural(sum(entry.num_trials for entry in ran), "trial")
    return [sweeps, trials, f"{duration(sum(entry.seconds for entry in ran))} in all", span_of_days(ran)]


def tally(shown: Iterable[Entry]) -> list[tuple[Held, int]]:
    """How many entries came out how."""
    counts = Counter(entry.held for entry in shown if entry.held is not None)
    return [(held, counts[held]) for held in Held if counts[held]]


# -- pages -------------------------------------------------------------------------------------------------------------


def index_html(shown: Sequence[Entry], sizes: Mapping[str, tuple[int, int]]) -> str:
    """The page; `sizes` has width and height of each picture, so that nothing moves while they load."""
    environment = Environment(
        loader=FileSystemLoader(DOCS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["links"] = links
    css = (Path(optsweep.report.__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        environment.get_template("gallery_page.html").render(
            content=CONTENT,
            entries=shown,
            themes=list(dict.fromkeys(entry.note["theme"] for entry in shown)),
            machines=machines(shown),
            totals=totals(shown),
            tally=tally(shown),
            badge=_BADGES,
            sizes=sizes,
            css=Markup(css),
        )
        + "\n"
    )


def links(text: str) -> Markup:
    """Escaped text with its Markdown links as anchors."""
    return Markup(re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2">\1</a>', html.escape(text, quote=False)))


def readme(shown: Sequence[Entry]) -> str:
    """The same in Markdown, for readers of the repository."""
    parts = [
        "# Gallery",
        "<!-- Written by docs/gallery.py from docs/gallery.yaml and results/: change those, and run it. -->",
        CONTENT["introduction"],
        f"{', '.join(totals(shown))}. " + "; ".join(machines(shown)) + ".",
        ", ".join(f"{count} {held}" for held, count in tally(shown)) + "." if tally(shown) else "",
        "\n".join(f"- {_SIGNS[Held(name)]} **{name}**: {meaning}" for name, meaning in CONTENT["outcomes"].items()),
        _contents(shown),
        *(part for entry in shown for part in _section(entry)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _contents(shown: Sequence[Entry]) -> str:
    rows = ["| question | what came out | direction held? |", "| --- | --- | --- |"]
    for entry in shown:
        said = _cell(entry.answers[0].sentence) if entry.results else ""
        more = f" (and {len(entry.answers) - 1} more)" if len(entry.answers) > 1 else ""
        sign = f"{_SIGNS[entry.held]} {entry.held}" if entry.held else "not run yet"
        rows.append(f"| [{_cell(entry.note['question'])}](#{entry.sweep}) | {said}{more} | {sign} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _section(entry: Entry) -> Iterable[str]:
    claim = entry.note["claim"]
    yield f"## {entry.sweep}"
    yield f"**{entry.note['question']}**"
    yield f"Known ({claim['id']}): {claim['text']} {_setting(entry)}Source: {claim['source']}."
    yield f"Expected: {entry.note['expected']}"
    if not entry.results:
        yield "Not run yet."
    else:
        yield "\n".join(f"- {_SIGNS[a.held]} {a.held}: {a.sentence.replace('<', '&lt;')}" for a in entry.answers)
    yield f"What differs: {entry.note['differs']}"
    yield "\n".join(f"![{_alt(picture)}](figures/{picture.file})" for picture in entry.pictures)
    if entry.results:
        yield (
            f"`{entry.command}` ({', '.join(entry.facts)}{'; partial' if entry.partial else ''}); "
            f"[results](results/{entry.sweep}.json)"
        )


def _setting(entry: Entry) -> str:
    setting = entry.note["claim"].get("setting")
    return f"There: {setting}; here {entry.scale}. " if setting else ""


def _alt(picture: Picture) -> str:
    return f"{picture.title}: {picture.alt}".replace("[", "(").replace("]", ")").replace("\n", " ")
