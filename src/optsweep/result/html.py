"""A result as a piece of HTML, for a notebook: in its own colours, which read on a dark page too."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from html import escape

from optsweep.report.figures.canvas import FigurePlan, style
from optsweep.result.result import Result

_BOX = "font-family: sans-serif; max-width: 60rem; color: #1c2126; background: #fffffe; padding: 0.8rem 1rem"
_TABLE = "color: inherit; background: none; border-collapse: collapse"
_ROW = "background: none"
_CELL = "text-align: left; padding: 0.15rem 0.7rem 0.15rem 0; white-space: nowrap; color: inherit; background: none"
"""Jupyter gives tables colours of its theme, which on a dark one are for a dark page."""


def html(result: Result) -> str:
    """Verdict, table, main figure, where the report is. Every text is escaped; nothing is fetched, no script runs."""
    parts = [f"<p><b>{escape('+'.join(result.names))}</b></p>"]
    for group in result.content["groups"]:
        said = " ".join(filter(None, (group["headline"], group.get("ranking", ""))))
        parts.append(f"<p>{escape(said)}</p>" + _listed(group.get("conditions", ())))
    parts.append(_table(*result.table))
    plan = result.main_figure
    parts += [_picture(plan)] if plan else []
    if result.note:
        parts.append(f"<p><i>{escape(result.note)}</i></p>")
    if result.page:
        parts.append(f"<p>report: <code>{escape(str(result.page))}</code></p>")
    parts += [_browse(name) for name in result.names]
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def _browse(name: str) -> str:
    """How to get to what a sweep has in MLflow."""
    return f"<p>in MLflow: <code>optsweep ui {escape(shlex.quote(name))}</code></p>"


def _listed(texts: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>" if texts else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="{_CELL}">{escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr style="{_ROW}">' + "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    table = f'<table style="{_TABLE}"><thead><tr style="{_ROW}">{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div style="overflow-x: auto">{table}</div>'


def _picture(plan: FigurePlan) -> str:
    """The figure as an image of its own, so that its ids and fonts meet nothing of the notebook's."""
    text = io.BytesIO()
    with style():
        plan.draw().savefig(text, format="svg", metadata={"Date": None, "Creator": "optsweep"})
    content = base64.b64encode(text.getvalue()).decode("ascii")
    source = f"data:image/svg+xml;base64,{content}"
    return f'<img src="{source}" alt="{escape(plan.alt)}" style="max-width: 100%"><p>{escape(plan.caption)}</p>'
