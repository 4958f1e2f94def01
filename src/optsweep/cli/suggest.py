"""`optsweep suggest`: the suggested values of an arm, with the arithmetic and the source of each."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

from rich.console import Console
from rich.table import Table

from optsweep.build.hyperparameters import lr_options
from optsweep.build.suggestions import TaskFacts, suggest_all, weight_decay
from optsweep.config.arm import Arm


def print_suggestions(arm: Arm, facts: TaskFacts, *, as_json: bool) -> None:
    """A table, or JSON."""
    options = lr_options(arm.optimizer.options)
    suggestions = suggest_all(arm.optimizer.name, arm.schedule.name, arm.decay.mode, facts, **options)
    if arm.decay.mode == "none":  # who asks before choosing wants to see λ too
        for mode in ("decoupled", "l2"):
            decay = weight_decay(arm.optimizer.name, mode, facts, arm.schedule.name)
            suggestions += [replace(decay, note=f"with weight_decay={mode}")] if decay else []
    if as_json:
        content = {"facts": asdict(facts), "suggestions": [asdict(s) for s in suggestions]}
        sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return
    title = f"{arm.optimizer.name} + {arm.schedule.name} on {arm.task.name}"
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in ("what", "value", "range", "how", "source"):
        table.add_column(column, overflow="fold")
    for s in suggestions:
        reach = f"{s.low:.3g} – {s.high:.3g}" if s.low != s.high else ""
        table.add_row(s.key, f"{s.value:.3g}", reach, s.arithmetic, s.source + (f" ({s.note})" if s.note else ""))
    Console().print(table)
    known = ", ".join(f"{key} {value}" for key, value in asdict(facts).items() if value not in (None, "", False))
    sys.stdout.write(f"task facts: {known}\n")
