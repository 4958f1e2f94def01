"""Runs the named sweeps and writes docs/gallery/: python docs/gallery.py [--run [NAME …]] [--pages | --check].

docs/gallery.yaml has the questions and claims, gallery_readings how results answer them, gallery_pages.py the text.
tests/contract/test_gallery.py fails if the pages are not what the committed results give.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from gallery_pages import CONTENT, Entry, entries, index_html, readme
from gallery_readings import NotFound, Results

from optsweep.report.wording import duration, listed, plural, size

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "docs" / "gallery"
SWEEPS = ROOT / "sweeps"

MOST_BYTES = 10 * 2**20  # of the whole gallery: it lies in git
COLOURS = 128  # of a picture's palette; figures are lines and flat areas on white


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 if something is wrong or a sweep failed, 2 for a mistake of the caller or missing results."""
    options = _parser().parse_args(arguments)
    names = [str(note["sweep"]) for note in CONTENT["entries"]]
    unknown = [name for name in options.names if name not in names]
    if options.names and not options.run:
        return _say("names say what to run: they go with --run", 2)
    if unknown:
        return _say(f"there is no sweep {listed(unknown)} in docs/gallery.yaml", 2)
    try:
        if options.check:
            found = problems(options.out)
            return _say("\n".join(found), 1) if found else 0
        failed = run([name for name in names if name in options.names or not options.names]) if options.run else []
        if not options.pages:
            missing = [name for name in names if not (options.reports / name / "results.json").is_file()]
            if missing and not (options.partial or options.run):
                return _say(f"no results of {listed(missing)} in {options.reports}: run them, or add --partial", 2)
            collect(options.reports, options.out)
        write(options.out)
    except NotFound as problem:
        return _say(str(problem), 1)
    total = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    if total > MOST_BYTES:
        return _say(f"{options.out} has {size(total)}, more than {size(MOST_BYTES)}: show fewer figures", 1)
    print(f"{options.out / 'index.html'} ({size(total)})")
    return _say(f"failed: {listed(failed)}", 1) if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run the named sweeps, and write docs/gallery/ from their reports.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="sweeps to run (default: all)")
    parser.add_argument("--run", action="store_true", help="run the sweeps first; what has finished costs little")
    parser.add_argument("--pages", action="store_true", help="only write the pages again, from the results in --out")
    parser.add_argument("--check", action="store_true", help="only say what is stale or missing")
    parser.add_argument(
        "--partial", action="store_true", help="do with what there is; others stay as they are in --out"
    )
    parser.add_argument("--reports", type=Path, default=ROOT / "reports", help="folder of the reports")
    parser.add_argument("--out", type=Path, default=GALLERY, help="folder to write (default: docs/gallery)")
    return parser


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


# -- run ---------------------------------------------------------------------------------------------------------------


def run(names: Sequence[str]) -> list[str]:
    """Run sweeps in the repository's root, one after the other; returns those that failed."""
    failed, begin = [], time.monotonic()
    for place, name in enumerate(names, 1):
        print(f"[{place}/{len(names)}] {name}", flush=True)
        start = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "optsweep", "-cn", name], cwd=ROOT, check=False).returncode
        print(f"{name}: {duration(time.monotonic() - start)}{f', exit code {code}' if code else ''}", flush=True)
        failed += [name] if code else []
    print(f"{plural(len(names), 'sweep')}: {duration(time.monotonic() - begin)}", flush=True)
    return failed


# -- build -------------------------------------------------------------------------------------------------------------


def collect(reports: Path, out: Path) -> None:
    """Copy results and the pictures that entries show; of a sweep without a report, what `out` has stays."""
    (out / "results").mkdir(parents=True, exist_ok=True)
    (out / "figures").mkdir(exist_ok=True)
    for entry in entries({}):
        source = reports / entry.sweep / "results.json"
        if not source.is_file():
            continue
        found = json.loads(source.read_bytes())
        compact = json.dumps(found, ensure_ascii=False, separators=(",", ":"))  # a third is indentation
        (out / "results" / f"{entry.sweep}.json").write_text(compact + "\n", encoding="utf-8")
        ran = Entry(entry.note, found)
        for pattern in ran.absent:
            _say(f"{entry.sweep}: its report has no figure {pattern}", 0)
        for picture in ran.pictures:
            drawn = source.parent / "figures" / f"{picture.name}.png"
            (out / "figures" / picture.file).write_bytes(small_png(drawn.read_bytes()))
    kept = {picture.file for entry in entries(results_in(out)) for picture in entry.pictures}
    for path in (out / "figures").glob("*.png"):
        if path.name not in kept:
            path.unlink()


def small_png(png: bytes) -> bytes:
    """The picture with a palette of few colours: a quarter of the bytes, and no difference to see."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        reduced = image.convert("RGB").quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    held = io.BytesIO()
    reduced.save(held, "png", optimize=True)
    return held.getvalue()


def results_in(folder: Path) -> dict[str, Results]:
    """The results that a gallery has, by sweep."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (folder / "results").glob("*.json")}


def texts(folder: Path) -> dict[Path, str]:
    """The pages that a gallery's results give."""
    shown = entries(results_in(folder))
    sizes = {path.name: png_size(path) for path in sorted((folder / "figures").glob("*.png"))}
    return {folder / "index.html": index_html(shown, sizes), folder / "README.md": readme(shown)}


def png_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header."""
    with path.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:])
    return width, height


def write(folder: Path) -> None:
    """Write the pages of a gallery from its results."""
    for path, text in texts(folder).items():
        path.write_text(text, encoding="utf-8")


# -- check -------------------------------------------------------------------------------------------------------------


def problems(folder: Path = GALLERY, sweeps: Path = SWEEPS) -> list[str]:
    """Entries without a sweep, sweeps without an entry, and whatever of a gallery is not what its results give."""
    names = [str(note["sweep"]) for note in CONTENT["entries"]]
    files = {path.stem for path in sweeps.glob("*.yaml")}
    found = [f"sweeps/{name}.yaml has no entry in docs/gallery.yaml" for name in sorted(files - set(names))]
    found += [f"{name} of docs/gallery.yaml is no sweep of sweeps/" for name in names if name not in files]
    found += [f"{name} has {names.count(name)} entries" for name in sorted({n for n in names if names.count(n) > 1})]
    return found + (_stale(folder) if any(folder.glob("results/*.json")) else [])


def _stale(folder: Path) -> list[str]:
    held: Mapping[str, Results] = results_in(folder)
    wanted = {picture.file for entry in entries(held) for picture in entry.pictures}
    there = {path.name for path in folder.glob("figures/*")}
    found = [f"results/{name}.json has no entry" for name in held if name not in {e.sweep for e in entries({})}]
    found += [f"figures/{name} is missing" for name in sorted(wanted - there)]
    found += [f"figures/{name} is shown nowhere" for name in sorted(there - wanted)]
    for path, text in texts(folder).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            found.append(f"{path.name} is stale: run `python docs/gallery.py --pages`")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
