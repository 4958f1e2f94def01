"""Writes docs/catalogue.md and its pictures: python docs/catalogue.py [--check].

Formulas come from docstrings, defaults and their meaning from conf/, suggested values from its tables, and state sizes
and curves are computed, so nothing that the code knows is typed in twice. docs/catalogue.yaml has the rest.
tests/contract/test_catalogue.py fails if the page is not what this would write.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from catalogue_pictures import STEPS, pictures

from optsweep.build import suggestions as suggest
from optsweep.build.arithmetic import short
from optsweep.optim import averaging, schedule_functions
from optsweep.optim.iterate import Last
from optsweep.optim.layout import Layout, Role
from optsweep.optim.rule import Rule
from optsweep.optim.schedule_free import ScheduleFree
from optsweep.optim.schedules import schedule_names, traits_of, warmup_names
from optsweep.optim.update import Update

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
PAGE = ROOT / "docs" / "catalogue.md"
PICTURES = ROOT / "docs" / "catalogue"

SIDE = 64  # of the square matrix whose state is counted

NOTES: Mapping[str, Mapping[str, Any]] = yaml.safe_load((ROOT / "docs" / "catalogue.yaml").read_text(encoding="utf-8"))
"""What the code doesn't know, by group and choice."""

# -- the page ----------------------------------------------------------------------------------------------------------


def page() -> str:
    """The whole page."""
    parts = [
        "# Catalogue",
        "<!-- Written by docs/catalogue.py from the code, conf/ and docs/catalogue.yaml: change those, and run it. -->",
        NOTES["introduction"]["page"],
        "[Optimizers](#optimizers) · [Schedules](#schedules) · [Warm-ups](#warm-ups) · [Weight decay](#weight-decay) · "
        "[Averaging](#averaging) · [Recipes](#recipes) · [Tasks](#tasks) · [Suggested values](#suggested-values)",
        *optimizers(),
        *all_schedules(),
        *warmups(),
        *decays(),
        *averages(),
        *recipes(),
        *tasks(),
        *suggestions(),
    ]
    return "\n\n".join(parts) + "\n"


def optimizers() -> Iterator[str]:
    """A table of all, then one entry each."""
    yield "## Optimizers"
    yield NOTES["introduction"]["optimizers"].format(SIDE=SIDE, STEPS=STEPS)
    rows = []
    for name, known in NOTES["optimizer"].items():
        if name == "external":
            continue
        lr = suggest.LR_RANGES[name]
        alone, averaged = (_state(rule_of(name), iterate) for iterate in (Last(), ScheduleFree()))
        rows.append(
            [f"[{name}](#{name})", known["generation"], alone, averaged, f"{_range(lr.low, lr.high)} ({lr.source})"]
        )
    yield _table(["optimizer", "generation", "state", "state, schedule-free", "suggested LR"], rows)
    missing = {path.stem for path in (CONF / "optimizer").glob("*.yaml")} ^ NOTES["optimizer"].keys()
    if missing:
        raise ValueError(f"docs/catalogue.py and conf/optimizer differ in {', '.join(sorted(missing))}")
    for name, known in NOTES["optimizer"].items():
        yield f"### {name}"
        if name != "external":
            yield _code(formula(rule_of(name)))
        yield known["note"]
        yield _options(CONF / "optimizer" / f"{name}.yaml")
        memory = "" if name == "external" else f" Memory: {_first_line(rule_of(name))}"
        yield f"Source: {known['source']}.{memory}"


def all_schedules() -> Iterator[str]:
    """One entry with a picture each."""
    yield "## Schedules"
    yield NOTES["introduction"]["all_schedules"].format(SIDE=SIDE, STEPS=STEPS)
    if missing := set(schedule_names()) ^ NOTES["schedule"].keys():
        raise ValueError(f"docs/catalogue.py and schedule_functions.py differ in {', '.join(sorted(missing))}")
    for name, known in NOTES["schedule"].items():
        yield f"### {name}"
        yield f"![{name}](catalogue/{name}.svg)"
        if iterate := traits_of(name).iterate:
            yield _code(_block(inspect.getmodule(iterate).__doc__))
        else:
            yield _quoted(getattr(schedule_functions, name))
        yield known["note"]
        yield _options(CONF / "schedule" / f"{name}.yaml")
        yield f"Source: {known['source']}."


def warmups() -> Iterator[str]:
    """One line with a picture each."""
    yield "## Warm-ups"
    yield NOTES["introduction"]["warmups"]
    rows = [["none", "no warm-up", ""]]
    for name in warmup_names():
        if name != "none":
            text = _first_line(getattr(schedule_functions, schedule_functions.WARMUP + name))
            rows.append([name, text, f"![{name} warm-up](catalogue/warmup_{name}.svg)"])
    rows.append(["suggested", _comment(CONF / "warmup" / "suggested.yaml"), ""])
    yield _table(["warmup", "multiplier", ""], rows)


def decays() -> Iterator[str]:
    """One row each."""
    yield "## Weight decay"
    yield NOTES["introduction"]["decays"]
    rows = []
    for name, note in NOTES["weight_decay"].items():
        path = CONF / "weight_decay" / f"{name}.yaml"
        said = next((meaning for key, _, meaning in _yaml_lines(path) if key == "mode"), "")
        rows.append([name, said or _comment(path), note])
    yield _table(["weight_decay", "update", "to know"], rows)


def averages() -> Iterator[str]:
    """One entry each."""
    yield "## Averaging"
    yield NOTES["introduction"]["averages"]
    for name in sorted(path.stem for path in (CONF / "averaging").glob("*.yaml")):
        path = CONF / "averaging" / f"{name}.yaml"
        yield f"### {name}" if name != "none" else "### none (no average)"
        yield _comment(path)
        if name != "none":
            doc = inspect.cleandoc(getattr(averaging, name.upper()).__doc__ or "")
            yield doc.partition("\n")[0]
            if block := _block(doc):
                yield _code(block)
            yield _options(path)


def recipes() -> Iterator[str]:
    """One row each."""
    yield "## Recipes"
    yield "Several groups at once, `recipe=adamw_cosine,soap_schedulefree`; anything else on the command line wins."
    rows = []
    for path in sorted((CONF / "recipe").glob("*.yaml")):
        content = yaml.safe_load(path.read_text()) or {}
        groups = {key.split("/")[1]: value for entry in content.get("defaults", []) for key, value in entry.items()}
        values = [f"{g}.{k}={_value(v)}" for g, keys in content.items() if g != "defaults" for k, v in keys.items()]
        chosen = [f"{group}={choice}" for group, choice in groups.items()]
        rows.append([path.stem, _comment(path), " ".join(f"`{item}`" for item in [*chosen, *values])])
    yield _table(["recipe", "what it is", "what it sets"], rows)


def tasks() -> Iterator[str]:
    """One row each."""
    yield "## Tasks"
    yield "Batch and steps are defaults; the target is the validation loss that figures mark."
    rows = []
    for path in sorted((CONF / "task").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        target = content.get("target_loss")
        what = _comment(path)
        rows.append(
            [path.stem, what, str(content["batch_size"]), str(content["steps"]), _value(target) if target else ""]
        )
    yield _table(["task", "what it is", "batch", "steps", "target"], rows)


def suggestions() -> Iterator[str]:
    """The tables of suggestions.py that no optimizer's entry has."""
    yield "## Suggested values"
    yield NOTES["introduction"]["suggestions"]
    rows = []
    for name in suggest.LR_RANGES:
        sf, decay = suggest.SCHEDULE_FREE_LR.get(name), suggest.DECOUPLED_DECAY.get(name)
        rows.append(
            [
                name,
                f"{_range(sf.low, sf.high)} ({sf.source})" if sf else "× 1 – 10 (Schedule-Free)",
                f"{_range(decay.low, decay.high)} ({decay.source})" if decay else _decay_fallback(name),
            ]
        )
    yield _table(["optimizer", "LR under schedule_free", "λ, decoupled"], rows)
    yield (
        "λ for `l2` and `independent` (deck): 1e-3 below "
        f"{suggest.SMALL_DATA:,} samples, 1e-5 above {suggest.LARGE_DATA:,}, 1e-4 between; "
        + "; ".join(
            f"× {_value(factor)} {what}"
            for what, factor in {**suggest.DECAY_BY_ARCHITECTURE, **suggest.DECAY_BY_DATA}.items()
        )
        + f"; × 0.5 below {suggest.SHORT_RUN} epochs, × 2 above {suggest.LONG_RUN}."
    )
    yield (
        "LR (deck): × √(batch / reference batch), × 0.5 for a deep network, × 0.1 for fine-tuning, × 0.1 for unstable "
        "training. Warm-up (deck): CNN 5 %, transformer 10 %, fine-tuning 6 %, batch over "
        f"{suggest.LARGE_BATCH} 15 – 20 %, transfer learning 3 – 5 %, small data set 3 – 5 %, unstable training 5 "
        "points more."
    )
    yield "Sources: " + "; ".join(f"*{name}*, {text}" for name, text in suggest.SOURCES.items()) + "."


def _decay_fallback(name: str) -> str:
    return "deck's tables" if name not in suggest.ADAPTIVE else "AdamW's range × AdamW's LR / its own"


# -- pieces ------------------------------------------------------------------------------------------------------------


def rule_of(name: str) -> type[Rule]:
    """The rule that a YAML of conf/optimizer/ names."""
    module, _, attribute = str(
        yaml.safe_load((CONF / "optimizer" / f"{name}.yaml").read_text())["_target_"]
    ).rpartition(".")
    rule: type[Rule] = getattr(importlib.import_module(module), attribute)
    return rule


def formula(cls: type[Rule]) -> str:
    """The indented block of the module's docstring; of several rules' in one block, that of `cls`."""
    lines = _block(inspect.getmodule(cls).__doc__).splitlines()
    owners = {name for name, member in vars(inspect.getmodule(cls)).items() if inspect.isclass(member)}
    if not any(line.split()[:1] == [cls.__name__] for line in lines):
        return "\n".join(lines)
    own, mine = [], False
    for line in lines:
        first = line.split()[:1]
        if first and first[0] in owners:
            mine = first[0] == cls.__name__
            line = line.removeprefix(first[0])
        if mine and line.strip():
            own.append(re.sub(r" {2,}", "  ", line.strip()))
    return "\n".join(own)


def _block(doc: str | None) -> str:
    """The indented lines of a docstring."""
    lines = [line[4:] for line in inspect.cleandoc(doc or "").splitlines() if line.startswith("    ")]
    return "\n".join(lines)


def _first_line(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "").partition("\n")[0]


def _quoted(function: Any) -> str:
    """A schedule's docstring, its formula first, without what it raises."""
    return "**Multiplier** " + re.sub(r"\s*Raises ValueError[^.]*\.", "", inspect.cleandoc(function.__doc__ or ""))


def _state(cls: type[Rule], iterate: Any) -> str:
    """Numbers of state per parameter of a square matrix."""
    layout = Layout.build({"w": (SIDE, SIDE)}, {"w": Role.HIDDEN})
    state = Update(cls(), layout, iterate=iterate).init(torch.zeros(1, layout.size))
    return f"{sum(tensor.numel() for tensor in state.values()) / SIDE**2:g}"


def _yaml_lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """(key, value, comment) of every top-level key."""
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r"(\w+): (.*?)(?:\s+# (.*))?", line):
            yield match[1], match[2], match[3] or ""


def _options(path: Path) -> str:
    """The options of a choice, as a table."""
    group = path.parent.name
    rows = [[f"`{group}.{k}`", f"`{v}`", note] for k, v, note in _yaml_lines(path) if k not in ("name", "_target_")]
    return _table(["option", "default", "meaning"], rows) if rows else "No options."


def _comment(path: Path) -> str:
    """The comment at the head of a YAML, as one line."""
    lines = [line for line in path.read_text().splitlines() if "@package" not in line]
    head = []
    for line in lines:
        if not line.startswith("# "):
            break
        head.append(line[2:])
    return " ".join(head)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and value != 1 / 3 else "1/3" if value == 1 / 3 else str(value)


def _range(low: float, high: float) -> str:
    return f"{short(low)} – {short(high)}"


def _code(text: str) -> str:
    return f"```\n{text}\n```"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# -- command -----------------------------------------------------------------------------------------------------------


def stale() -> list[str]:
    """Files that are not what this script would write."""
    wanted = {PAGE: page(), **{PICTURES / name: svg for name, svg in pictures(NOTES["schedule"]).items()}}
    there = {PAGE, *PICTURES.glob("*.svg")}
    wrong = [path for path, text in wanted.items() if path not in there or path.read_text(encoding="utf-8") != text]
    return sorted(str(path.relative_to(ROOT)) for path in {*wrong, *(there - wanted.keys())})


def main() -> int:
    """Write everything, or with --check say what is stale."""
    if "--check" in sys.argv[1:]:
        found = stale()
        sys.stdout.write("".join(f"stale: {name}\n" for name in found))
        return 1 if found else 0
    PICTURES.mkdir(exist_ok=True)
    drawn = pictures(NOTES["schedule"])
    for old in PICTURES.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    PAGE.write_text(page(), encoding="utf-8")
    for name, svg in drawn.items():
        (PICTURES / name).write_text(svg, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
