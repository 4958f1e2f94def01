"""Contents of a results.json, made by hand: what the gallery's readings look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from optsweep.inference import statistics
from optsweep.inference.comparison import Conclusion

SAME = [0.2, -0.1, 0.15, -0.2, 0.05, -0.1]  # noise about zero
LESS = [-1.0, -1.1, -0.9, -1.05, -0.95, -1.0]


def arm(name: str, losses: Sequence[float | None], **more: Any) -> dict[str, Any]:
    """An arm with a test loss per seed; None: diverged."""
    confirm = [
        {"seed": seed, "status": "diverged", "metrics": {}}
        if loss is None
        else {"seed": seed, "status": "finished", "metrics": {"test/loss": loss, "test/accuracy": 1 - loss / 100}}
        for seed, loss in enumerate(losses)
    ]
    return {
        "name": name,
        "label": name,
        "choices": {"optimizer": name},
        "facts": {"loss_unit": "nats", "metric": "accuracy"},
        "confirm": confirm,
        "timing": None,
        "state_bytes": None,
        "lr_basin": None,
        "chosen": None,
        "space": {"lr": {"low": 1e-3, "high": 1.0}},
        "trials": {"search": {"finished": 20, "diverged": 0}, "confirm": {"finished": len(losses)}},
        **more,
    }


def comparison(candidate: str, baseline: str, differences: Sequence[float], **more: Any) -> dict[str, Any]:
    """What the report says of two arms."""
    test = statistics.paired_t(differences)
    shown = test.p is not None and test.p < 0.05
    outcome = (Conclusion.BETTER if test.mean < 0 else Conclusion.WORSE) if shown else Conclusion.NO_DIFFERENCE
    return {
        "candidate": candidate,
        "baseline": baseline,
        "outcome": outcome.value,
        "differences": {str(seed): value for seed, value in enumerate(differences)},
        "paired_t": asdict(test),
        "p_holm": test.p,
        "steps_ratio": None,
        "steps_ratios": [],
        "time_ratio": None,
        "last_flip": None,
        **more,
    }


def group(*arms: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]] = (), **more: Any) -> dict[str, Any]:
    """A group whose baseline is its first arm."""
    held = {"title": "digits", "setting": {"task": "digits"}, "baseline": arms[0]["name"], "caveats": []}
    held |= {"sweep": "x", "seeds": {"nominal_level": 0.05, "looks": []}}
    return {**held, "arms": list(arms), "comparisons": list(comparisons), "headline": "", "ranking": "", **more}


def results(*groups: Mapping[str, Any], **across: Any) -> dict[str, Any]:
    """A results.json of one sweep."""
    sweep = {
        "name": "x",
        "plan": {"confirm": {"looks": [], "delta": None}},
        "environment": {"device": "cpu", "cores": 2, "processor": "Old <Mill>", "packages": {"torch": "2.0"}},
        "sessions": [{"start": 1e9, "end": 1e9 + 90}],
        "command": "optsweep -cn x",
    }
    over = {"run_lengths": [], "tasks": [], **across}
    return {"sweeps": [sweep], "groups": list(groups), "across": over, "partial": False, "figures": []}


def two(differences: Sequence[float], **more: Any) -> dict[str, Any]:
    """Muon, which is compared with the baseline AdamW, in one group."""
    base = [5.0 + 0.1 * seed for seed in range(len(differences))]
    ours = [b + d for b, d in zip(base, differences, strict=True)]
    return results(
        group(arm("adamw", base), arm("muon", ours), comparisons=[comparison("muon", "adamw", differences, **more)])
    )
