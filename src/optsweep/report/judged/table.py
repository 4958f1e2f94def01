"""Runs as some tool exported them: rows with columns, from a CSV, a W&B export, MLflow or a data frame."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optsweep.errors import UserError, nearest
from optsweep.tracking.foreign import experiment_rows

MLFLOW = "mlflow:"
"""Begins the address of an experiment."""

_PREFIXES = ("config.", "summary.", "params.", "metrics.", "tags.")
_NAMES = ("name", "run_name", "run")  # of W&B's and MLflow's tables, in any case
_SHOWN = 12  # columns that a message lists
_SEPARATORS = ",\t;"


@dataclass(frozen=True)
class RunTable:
    """Rows of runs, each with where it stands."""

    name: str  # for the report's folder
    columns: tuple[str, ...]
    rows: tuple[tuple[str, Mapping[str, object]], ...]  # ("line 7", columns)

    def column(self, option: str, wanted: str) -> str:
        """The column that is meant: by its name, or as a key of a config, a summary, params, metrics or tags."""
        if wanted in self.columns:
            return wanted
        found = [prefix + wanted for prefix in _PREFIXES if prefix + wanted in self.columns]
        found = found or [name for name in self.columns if name.lower() == wanted.lower()]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{option} {wanted}: it may be {' or '.join(found)}; give the whole name")
        there = ", ".join(self.columns[:_SHOWN]) + (", …" if len(self.columns) > _SHOWN else "")
        raise UserError(f"{option} {wanted}: no such column{nearest(wanted, self.columns)}; there are {there}")

    def named(self, pattern: str) -> RunTable:
        """With the groups of a pattern of the runs' names as further columns; empty where a name doesn't match."""
        held = [name for name in self.columns if name.lower() in _NAMES]
        if not held:
            raise UserError(f"--names: there is no column of names; one of {', '.join(_NAMES)} is needed")
        compiled = re.compile(pattern)
        empty = dict.fromkeys(compiled.groupindex, "")
        rows = []
        for place, row in self.rows:
            match = compiled.fullmatch(str(row.get(held[0], "")))
            rows.append((place, {**row, **(match.groupdict("") if match else empty)}))
        return RunTable(self.name, tuple(dict.fromkeys((*self.columns, *empty))), tuple(rows))


def read_table(
    source: str | Path | Iterable[Mapping[str, object]], metric: str, step: str | None, tracking_uri: str
) -> RunTable:
    """The rows of a file, of `mlflow:EXPERIMENT`, or of records (`frame.to_dict("records")`).

    Raises UserError for what can't be read.
    """
    if not isinstance(source, (str, Path)):
        records = list(source)
        if not all(isinstance(row, Mapping) for row in records):
            raise UserError(
                'source: records are wanted, a mapping for each row; of a data frame frame.to_dict("records")'
            )
        return _table("runs", ((f"row {place}", dict(row)) for place, row in enumerate(records, 1)), "the records")
    text = str(source)
    if text.startswith(MLFLOW):
        experiment = text.removeprefix(MLFLOW)
        history = (metric.removeprefix("metrics."), step) if step else None
        found = experiment_rows(tracking_uri, experiment, history)
        if not found:
            raise UserError(f"{text}: the experiment has no runs{f' that logged {metric}' if step else ''}")
        return _table(experiment, ((f"run {name}", row) for name, row in found), text)
    path = Path(source)
    table = _table(path.stem, _csv(path), str(path))
    return _melted(table, metric) or table


def _table(name: str, found: Iterable[tuple[str, Mapping[str, object]]], source: str) -> RunTable:
    rows = tuple((place, _flat(row)) for place, row in found)
    if not rows:
        raise UserError(f"{source}: there is no row of a run")
    return RunTable(name, tuple(dict.fromkeys(key for _, row in rows for key in row)), rows)


def _csv(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Rows under a header, separated by whichever of comma, tab and semicolon the header has most of."""
    if path.is_dir():
        raise UserError(f"{path}: a folder is there; name a CSV file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path}: it is no text in UTF-8; a CSV file is wanted")
    header = text.partition("\n")[0]
    if not header.strip():
        raise UserError(f"{path}: the file is empty" if not text.strip() else f"{path}: its first line is no header")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_SEPARATORS, key=header.count))
    try:
        columns = [name.strip() for name in next(reader)]
        if twice := sorted({name for name in columns if columns.count(name) > 1 and name}):
            raise UserError(f"{path}: two columns are called {twice[0]}")
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(columns):
                raise UserError(f"{path}: line {reader.line_num} has {len(row)} cells under {len(columns)} columns")
            yield f"line {reader.line_num}", dict(zip(columns, row, strict=False))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} can't be read ({error})") from None


# -- W&B -----------------------------------------------------------------------------------------------------------


def _melted(table: RunTable, metric: str) -> RunTable | None:
    """A chart's export, `Step`, `RUN - METRIC`, `RUN - METRIC__MIN`, …, as a row per run and step; None: it is none."""
    if metric in table.columns:
        return None
    ending = f" - {metric}"
    of_run = {column: column.removesuffix(ending) for column in table.columns if column.endswith(ending)}
    if not of_run:
        return None
    steps = table.columns[0]
    rows = [
        (f"{place}, run {name}", {"name": name, steps: row.get(steps, ""), metric: row[column]})
        for place, row in table.rows
        for column, name in of_run.items()
        if str(row.get(column, "")).strip()  # empty: not logged at this step
    ]
    return RunTable(table.name, ("name", steps, metric), tuple(rows))


def _flat(row: Mapping[str, object]) -> dict[str, object]:
    """Columns `config` and `summary` that hold dictionaries, as W&B's API gives them, as columns of their own."""
    flat: dict[str, object] = {}
    for key, value in row.items():
        held = _dictionary(value) if key in ("config", "summary") else None
        flat |= {key: value} if held is None else dict(_leaves(held, key))
    return flat


def _dictionary(value: object) -> Mapping[str, object] | None:
    if isinstance(value, Mapping):
        return value
    text = str(value).strip()
    if not text.startswith("{"):
        return None
    # not finite numbers have no literal
    text = re.sub(r"(?<=[:\[, ])(-?)(nan|inf|NaN|Infinity)(?=\s*[,}\]])", r"'\1\2'", text)
    for word, literal in (("true", "True"), ("false", "False"), ("null", "None")):
        text = re.sub(rf"(?<=[:\[, ]){word}(?=\s*[,}}\]])", literal, text)
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _leaves(held: Mapping[str, object], path: str) -> Iterator[tuple[str, object]]:
    for key, value in held.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}", value


def text_of(value: object) -> str:
    """A cell as text; nothing, and a data frame's gap, is empty."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return str(value).strip()


def columns_of(wanted: Sequence[str]) -> str:
    """A list of names for a message."""
    return ", ".join(wanted[:_SHOWN]) + (", …" if len(wanted) > _SHOWN else "")
