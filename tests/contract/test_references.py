"""references.bib parses, and every choice of conf/ says what it cites, or that there is nothing to cite."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from drive import CONF
from optsweep.build.suggestions import SOURCES
from optsweep.config.arm import GROUPS
from optsweep.report import references

BIB = CONF.parent / "src" / "optsweep" / "report" / "references.bib"

REQUIRED = {
    "article": {"author", "title", "journal", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "techreport": {"author", "title", "institution", "year"},
    "misc": {"author", "title", "year"},
}
OPTIONAL = {"volume", "number", "pages", "doi", "url", "eprint", "archiveprefix", "howpublished", "series"}


def parsed(text: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(kind, key, fields) of each entry, by BibTeX's grammar for braced values; raises where it is broken."""
    place = 0
    while found := re.compile(r"\s*(?:%[^\n]*\n\s*)*@(\w+)\{([^,\s{}]+)").match(text, place):
        kind, key, fields, place = found.group(1), found.group(2), {}, found.end()
        while field := re.compile(r",\s*(\w+) = \{").match(text, place):
            place, depth = field.end(), 1
            start = place
            while depth:
                depth += {"{": 1, "}": -1}.get(text[place], 0)
                place += 1
            assert field.group(1) not in fields, f"{key} has {field.group(1)} twice"
            fields[field.group(1)] = text[start : place - 1]
        end = re.compile(r"\s*\}").match(text, place)
        assert end, f"{key}: nothing like a field or the entry's end at {text[place : place + 40]!r}"
        place = end.end()
        yield kind, key, fields
    assert not text[place:].strip(), f"not an entry: {text[place : place + 60]!r}"


ENTRIES = list(parsed(BIB.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("kind", "key", "fields"), ENTRIES, ids=[key for _, key, _ in ENTRIES])
def test_an_entry_is_whole(kind: str, key: str, fields: dict[str, str]) -> None:
    assert REQUIRED[kind] <= set(fields) <= REQUIRED[kind] | OPTIONAL
    assert all(value.strip() for value in fields.values())
    assert re.fullmatch(r"\d{4}", fields["year"])
    assert key.endswith(fields["year"])
    assert all("," in name or name in ("others", "{Student}") for name in fields["author"].split(" and "))
    assert re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "0000.0000"))
    assert ("eprint" in fields) == ("archiveprefix" in fields)
    assert fields.get("url", "https://").startswith("https://")
    assert all(text.isascii() for text in fields.values()), "BibTeX wants accents as commands"
    assert not re.search(r"(?<!\\)[&%#_]", re.sub(r"\d\S*", "", fields["title"]))


def test_keys_and_numbers_are_unique() -> None:
    keys = [key for _, key, _ in ENTRIES]
    assert len(set(keys)) == len(keys)
    for field in ("eprint", "doi", "title"):
        held = [fields[field] for _, _, fields in ENTRIES if field in fields]
        assert len(set(held)) == len(held)
    assert list(references.entries()) == keys, "the report reads other entries than are there"


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "recipe"])
def test_every_choice_says_what_it_cites(group: str) -> None:
    assert {path.stem for path in (CONF / group).glob("*.yaml")} == set(references.CHOICES[group])


def test_everything_cited_exists_and_everything_there_is_cited() -> None:
    choices = {key for of in references.CHOICES.values() for keys in of.values() for key in keys}
    others = {key for keys in references.SAMPLERS.values() for key in keys}
    source = BIB.with_name("references.py").read_text(encoding="utf-8")
    named = set(re.findall(r'"([a-z]+\d{4})"', source))
    assert choices | others | set(references.TOOLS) <= named
    assert named == set(references.entries())


def test_sources_of_ranges_with_a_number_have_an_entry() -> None:
    numbers = {number for text in SOURCES.values() for number in re.findall(r"\d{4}\.\d{5}", text)}
    assert numbers <= {fields["eprint"] for _, _, fields in ENTRIES if "eprint" in fields}
