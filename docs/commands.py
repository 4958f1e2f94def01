"""Writes docs/commands.md from what `optsweep --help` and the verbs' own say: python docs/commands.py [--check]."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from optsweep.cli.table import HELP, VERBS

PAGE = Path(__file__).resolve().with_name("commands.md")
COLUMNS = "100"

_BEGIN = """# The command line

<!-- Written by docs/commands.py from the code: change that, and run it. -->
`optsweep` is the command; `python -m optsweep` is the same. What begins with a verb is looked after by that verb. All
else are keys of a sweep, which [Hydra](https://hydra.cc/docs/intro/) composes: `KEY=VALUE`, several with commas and
`-m` make a grid, `-cn NAME` begins with a file of `sweeps/`, `--cfg job` prints the config instead of running it.

## Exit codes

| code | what it says |
| ---: | --- |
| 0 | done: of a sweep, its report is there, complete and of these results |
| 1 | it ran: every trial of the sweep crashed, `check` or `doctor` found a fault, or `verify` trials that differ |
| 2 | a mistake in what was given, or a failure from outside (a store that is away, a full disk), in a line on stderr |
| 3 | of `hydra/launcher=slurm`: not done, and jobs on the cluster go on with it; the same command says how they stand |
| 130 | ended by Ctrl-C; the same command goes on |

What the line of exit code 2 means, and what to do: [Troubleshooting](troubleshooting.md).

"""


def page() -> str:
    """The whole page."""
    parts = [f"{_BEGIN}## All of it\n\n```text\n{HELP}```\n"]
    parts += [f"## optsweep {verb}\n\n```text\n{said}```\n" for verb, said in _verbs()]
    return "\n".join(parts)


def stale() -> bool:
    """Whether the page isn't what this would write."""
    return not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page()


def _verbs() -> Iterator[tuple[str, str]]:
    """Verbs that have a help of their own, and what it says."""
    for verb in sorted(VERBS):
        with contextlib.suppress(ValueError):  # it takes keys of a sweep and nothing else
            yield verb, _help(verb)


def _help(verb: str) -> str:
    """What `optsweep VERB --help` prints. Raises UserError, a ValueError, of a verb that has none."""
    said = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS  # else the page were as wide as somebody's terminal
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            VERBS[verb](["--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return said.getvalue()


def main() -> int:
    """Write the page, or with --check say if it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return 1 if stale() else 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
