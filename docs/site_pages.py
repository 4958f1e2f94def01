"""A hook of mkdocs: pages that lie elsewhere in the repository, and links as the site has them.

The pages are written for the repository, where their links lead from file to file. README.md is the site's first page;
a notebook is a page of its cells and what came out of them.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
BROUGHT: Mapping[str, str] = {
    "README.md": "index.md",
    "SECURITY.md": "SECURITY.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/README.md": "benchmarks/README.md",
    "benchmarks/NOTES.md": "benchmarks/NOTES.md",
    "benchmarks/results/README.md": "benchmarks/results/README.md",
}
"""Path in the repository → page of the site; what lies in docs/ has its own."""

NOTEBOOKS: Mapping[str, str] = {"docs/tutorial.ipynb": "tutorial.md"}
_WEIGHTS = {
    "troubleshooting.md": 4,
    "start.md": 2,
    "own-model.md": 2,
    "design.md": 0.4,
    "CHANGELOG.md": 0.2,
    "benchmarks/NOTES.md": 0.2,
}
"""How much a page counts in the search, where not as much as the others."""

_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#\s])")
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Pages that the menu of mkdocs.yml hasn't are added to it, under "Also"."""
    listed = set(_leaves(config.nav))
    docs = Path(config.docs_dir)
    others = sorted({str(path.relative_to(docs)) for path in docs.rglob("*.md")} - listed)
    if others:
        config.nav = [*(config.nav or ()), {"Also": others}]
    return config


def _leaves(nav: Any) -> Iterator[str]:
    """The pages of a menu."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _leaves(part)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that don't lie in docs/."""
    for path, page in BROUGHT.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    for path, page in NOTEBOOKS.items():
        cells = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
        files.append(File.generated(config, page, content=notebook_page(cells, Path(path).name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text of a page with its links as the site has them."""
    page.meta["search"] = {"boost": _WEIGHTS.get(page.file.src_uri, 1)}
    return for_site(markdown, page.file.src_uri)


def for_site(markdown: str, page: str) -> str:
    """Links of a page, which are of the repository, as links of the site; code is left alone."""
    source = next((path for path, moved in _PLACES if moved == page), f"docs/{page}")

    def moved(found: re.Match[str]) -> str:
        return _relative(_place(posixpath.normpath(posixpath.join(posixpath.dirname(source), found[0]))), page)

    parts = _FENCE.split(markdown)
    return "".join(part if place % 2 else _LINK.sub(moved, part) for place, part in enumerate(parts))


_PLACES = (*BROUGHT.items(), *NOTEBOOKS.items())


def _place(path: str) -> str:
    """Where the site has a file of the repository; one that it hasn't keeps a path which mkdocs complains of."""
    if (ROOT / path).is_dir():
        path = posixpath.join(path, "README.md")
    return dict(_PLACES).get(path, path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}")


def _relative(path: str, page: str) -> str:
    return posixpath.relpath(path, posixpath.dirname(page) or ".")


# -- notebooks -------------------------------------------------------------------------------------------------------


def notebook_page(cells: Sequence[Mapping[str, Any]], name: str) -> str:
    """A notebook as Markdown: its text, its code, and what it showed."""
    parts = [part for cell in cells for part in _cell(cell)]
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\n<a href={json.dumps(name)} download>The notebook</a>, to run it yourself.\n{rest}\n"


def _cell(cell: Mapping[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
    else:
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            if output.get("name") != "stderr":
                yield f'<div class="output">\n{_output(output)}\n</div>'


def _output(output: Mapping[str, Any]) -> str:
    """As HTML on lines of which none is empty, so that Markdown leaves it alone."""
    shown = output.get("data", {"text/plain": output.get("text", "")})
    if "text/html" in shown:
        return re.sub(r"\n\s*\n", "\n", "".join(shown["text/html"]).strip())
    if "image/png" in shown:
        return f'<img alt="A figure" src="data:image/png;base64,{"".join(shown["image/png"]).strip()}">'
    return f"<pre>{escape(''.join(shown['text/plain'])).replace(chr(10) * 2, chr(10) + '&#8203;' + chr(10))}</pre>"
