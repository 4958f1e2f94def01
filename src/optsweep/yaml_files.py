"""YAML that a user wrote, or got from somebody: looked at before anything is made of it, so that none hangs a program.

An alias that holds itself never ends, and nine aliases of nine aliases of … unfold to billions of values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from optsweep.errors import UserError

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000
"""Of a file, its aliases unfolded."""

MOST_DEPTH = 50
"""Groups within groups."""


def check_yaml(content: bytes, name: str) -> None:
    """Raise UserError, which names the file, for what is no YAML of keys and values, or too much of it."""
    if len(content) > MOST_BYTES:
        raise UserError(f"{name}: {len(content)} bytes are too many for a config file (at most {MOST_BYTES})")
    try:
        root = yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: it is not in UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise UserError(f"{name}: its values are nested too deeply") from None
    except yaml.YAMLError as error:
        raise UserError(f"{name}{in_words(error)}") from None
    if root is None:
        return
    _count(root, name, (), {})
    if not isinstance(root, yaml.MappingNode) and root.value not in ("", "null", "~"):
        raise UserError(f"{name}: it holds no group of keys (KEY: VALUE in every line)")


def in_words(error: yaml.YAMLError) -> str:
    """Where the file is wrong, and what is: ', line 2: found character '\\t' that cannot start any token'."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        return f", line {mark.line + 1}: {' '.join(str(error.problem or error.context).split())}"
    return f": {' '.join(str(error).split())}"


def _count(node: yaml.Node, name: str, above: tuple[int, ...], known: dict[int, int]) -> int:
    """How many values a node unfolds to. Raises UserError if that never ends, or is too many."""
    if id(node) in above:
        raise UserError(f"{name}, line {node.start_mark.line + 1}: an alias (*) stands within what it is an alias of")
    if id(node) in known:
        return known[id(node)]
    if len(above) > MOST_DEPTH:
        raise UserError(f"{name}, line {node.start_mark.line + 1}: its values are nested too deeply")
    items: Sequence[yaml.Node] = ()
    if isinstance(node, yaml.MappingNode):
        items = [item for pair in node.value for item in pair]
    elif isinstance(node, yaml.SequenceNode):
        items = node.value
    count = 1 + sum(_count(item, name, (*above, id(node)), known) for item in items)
    if count > MOST_VALUES:
        raise UserError(f"{name}: its aliases (*) unfold to more than {MOST_VALUES} values")
    known[id(node)] = count
    return count


def circles_of_defaults(folders: Sequence[Path]) -> Iterator[Path]:
    """The files below the folders whose `defaults` lead back to them."""
    wanted = {
        path.relative_to(folder).with_suffix("").as_posix(): (path, _defaults(path, path.parent.relative_to(folder)))
        for folder in folders
        for path in sorted(folder.rglob("*.yaml"))
    }
    for name, (path, first) in wanted.items():
        reached, ahead = set[str](), list(first)
        while ahead:
            if (found := ahead.pop()) == name:
                yield path
                break
            if found not in reached and found in wanted:
                reached.add(found)
                ahead += wanted[found][1]


def _defaults(path: Path, group: Path) -> list[str]:
    """What a file's defaults list names, as files below the folder."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, OSError, RecursionError, ValueError):
        return []
    listed = content.get("defaults") if isinstance(content, Mapping) else None
    named: list[str] = []
    for entry in listed if isinstance(listed, list) else []:
        pairs = entry.items() if isinstance(entry, Mapping) else [("", entry)]
        for key, choices in pairs:
            of = str(key).removeprefix("override ").removeprefix("optional ").partition("@")[0]
            for choice in map(str, choices if isinstance(choices, list) else [choices]):
                where = (Path(of) / choice.partition("@")[0]).as_posix()
                named.append(where.lstrip("/") if where.startswith("/") else (group / where).as_posix())
    return named
