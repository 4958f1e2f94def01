"""The verb `doctor`: whether a sweep can run here."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from optsweep.address import tracking_address
from optsweep.cli.parser import Parser, say_json
from optsweep.config.arm import Arm


def doctor(arguments: Sequence[str]) -> None:
    """Say a line for everything that was looked at; exit code 1 if something that a sweep needs fails."""
    parser = Parser(
        "optsweep doctor",
        description="Whether a sweep can run here: ok, warn or fail for versions, devices, stores, folders, ports. "
        "Nothing is written. Exit code 1 if something that a sweep needs fails.",
    )
    parser.add_argument("--tracking-uri", default=tracking_address())
    parser.add_argument("--storage", default=Arm.storage)
    where = "tracking.checkpoints, where all machines share a folder"
    parser.add_argument("--checkpoints", type=Path, metavar="FOLDER", help=where)
    parser.add_argument("--port", type=int, default=5000, help="for optsweep ui (default: 5000)")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args(arguments)
    from optsweep.launch.doctor.diagnosis import Diagnosis
    from optsweep.launch.doctor.doctor import examine, healthy

    found: list[Diagnosis] = []
    folder = options.checkpoints and options.checkpoints.expanduser().absolute()
    for finding in examine(options.tracking_uri, options.storage, options.port, folder):
        found.append(finding)
        if not options.json:
            print(_line(finding.health, finding.what, finding.found), flush=True)
    if options.json:
        say_json({"ok": healthy(found), "findings": [asdict(finding) for finding in found]})
    if not healthy(found):
        raise SystemExit(1)


def _line(health: str, what: str, found: str) -> str:
    """Three columns, the last one wrapped on a terminal."""
    before = f"{health:<5}{what:<18} "
    if not sys.stdout.isatty():
        return before + found
    width = shutil.get_terminal_size().columns
    return textwrap.fill(found, width, initial_indent=before, subsequent_indent=" " * len(before))
