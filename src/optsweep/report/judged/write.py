"""Writes the report folder of judged runs: index.html, figures/, results.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from optsweep.errors import UserError
from optsweep.report.figures.canvas import Drawing, save
from optsweep.report.judged import sayings
from optsweep.report.judged.figures import colour, plans
from optsweep.report.judged.findings import Judgement, RunComparison, judge
from optsweep.report.judged.question import Question
from optsweep.report.judged.runs import RunArm, gather
from optsweep.report.judged.table import RunTable
from optsweep.report.results import as_json
from optsweep.report.templates import environment
from optsweep.report.wording import decimals, difference, fixed, p_value

FORMAT = 1
KIND = "judged runs"


@dataclass(frozen=True)
class JudgedReport:
    """A written report, and what of it a terminal can show."""

    index: Path
    judgement: Judgement

    @property
    def verdict(self) -> str:
        """In one paragraph, with its conditions."""
        return sayings.text(self.judgement)

    @property
    def sentences(self) -> tuple[str, ...]:
        """One per comparison."""
        return tuple(sayings.sentence(found, self.judgement) for found in self.judgement.comparisons)

    @property
    def summary(self) -> str:
        """What is said on a terminal: the verdict, the comparisons of several, where the report is."""
        several = self.sentences if len(self.sentences) > 1 else ()
        conditions = "".join(f"- {text}\n" for text in sayings.conditions(self.judgement))
        return (
            f"\n{sayings.headline(self.judgement)}\n\n{conditions}"
            + ("\n" if several else "")
            + "".join(f"{text}\n" for text in several)
            + f"\nreport: {self.index}"
        )


def plain(report: JudgedReport) -> dict[str, Any]:
    """What `optsweep judge --json` prints. Keys are only ever added."""
    return {
        "report": str(report.index),
        "results": str(report.index.with_name("results.json")),
        "verdict": sayings.headline(report.judgement),
        "conditions": list(sayings.conditions(report.judgement)),
        "comparisons": list(report.sentences),
    }


def write_judgement(table: RunTable, question: Question, out: Path, source: str) -> JudgedReport:
    """Judge the rows and write the folder `out`. Raises UserError before anything is written."""
    judgement = judge(gather(table, question), question)
    _check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    drawings = [save(plan, "", out / "figures") for plan in plans(judgement)]
    content = results(judgement, source, drawings)
    (out / "results.json").write_text(as_json(content), encoding="utf-8")
    index = out / "index.html"
    index.write_text(render(judgement, source, drawings), encoding="utf-8")
    return JudgedReport(index, judgement)


def _check_free(out: Path) -> None:
    """Refuse to write over the report of a sweep."""
    try:
        found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(found, Mapping) or found.get("kind") != KIND:
        raise UserError(f"--out: {out} holds another report; name another folder")


# -- results.json --------------------------------------------------------------------------------------------------


def results(judgement: Judgement, source: str, drawings: Iterable[Drawing]) -> dict[str, Any]:
    """Everything that the page states; losses are the metric's values, negated where higher is better."""
    return {
        "format": FORMAT,
        "kind": KIND,
        "source": source,
        "question": asdict(judgement.question),
        "at": judgement.gathered.at,
        "headline": sayings.headline(judgement),
        "conditions": sayings.conditions(judgement),
        "absent": dict(judgement.gathered.absent),
        "sd_of_a_run": {"sd": judgement.sd, "df": judgement.sd_df},
        "arms": [_arm(arm) for arm in judgement.arms],
        "comparisons": [_comparison(found, judgement) for found in judgement.comparisons],
        "figures": [{"name": held.name, "title": held.title, "caption": held.caption} for held in drawings],
    }


def _arm(arm: RunArm) -> dict[str, Any]:
    runs = [{"seed": r.seed, "value": r.end.value, "step": r.end.step, "runs": r.count} for r in arm.runs]
    return {
        "name": arm.label,
        "mean": arm.value,
        "mean_loss": arm.mean,
        "n": arm.count,
        "diverged": arm.diverged_seeds,
        "runs": runs,
    }


def _comparison(found: RunComparison, judgement: Judgement) -> dict[str, Any]:
    return {
        "candidate": found.candidate.label,
        "baseline": found.baseline.label,
        "sentence": sayings.sentence(found, judgement),
        "outcome": found.outcome,
        "method": found.method,
        "n": found.n,
        "differences": found.differences,
        "test": asdict(found.test) if found.test else None,
        "p_holm": found.p_holm,
        "mean_losses": found.means,
    }


# -- the page ------------------------------------------------------------------------------------------------------


def render(judgement: Judgement, source: str, drawings: Iterable[Drawing]) -> str:
    """The page as HTML; every text is escaped, only our own SVG, CSS and JavaScript are not."""
    page = _environment().get_template("judged.html")
    return page.render(judgement=judgement, source=source, drawings=list(drawings))


@cache
def _environment() -> Environment:
    pages = environment(Path(__file__).parent)
    pages.globals.update(
        headline=sayings.headline,
        conditions=sayings.conditions,
        sentence=sayings.sentence,
        words=sayings.words,
        mean_of=sayings.mean_of,
        colour=colour,
        difference=_difference,
        held_to=_held_to,
        interval_of=sayings.interval_of,
    )
    return pages


def _held_to(arm: RunArm, judgement: Judgement) -> RunComparison | None:
    return next((found for found in judgement.comparisons if found.candidate is arm), None)


def _difference(found: RunComparison) -> tuple[str, str, str]:
    """Difference ± half of its interval, p, and how it was tested, for the table."""
    if found.test is None:
        return "–", "", ""
    mean, low, high = sayings.shown(found)
    half = None if low is None or high is None else (high - low) / 2
    places = decimals(half, mean)
    text = difference(mean, places, sign=True) + ("" if half is None else f" ± {fixed(half, places)}")
    return text, re.sub(r"^p (= )?", "", p_value(found.p_holm)), sayings.method(found)
