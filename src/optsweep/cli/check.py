"""The verb `check`: tries a sweep before it is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape

from optsweep.cli.parser import Parser, of_sweep, say_json
from optsweep.config.compose import axes_of, cells, check_overrides
from optsweep.config.door import arms_from
from optsweep.config.sections import NUM_WORKERS


def check(arguments: Sequence[str]) -> None:
    """Try what a sweep of these keys would do; exit code 1 if something would fail."""
    parser = Parser(
        "optsweep check",
        usage="optsweep check [--seconds SECONDS] [--json] KEY=VALUE …",
        description="Try a sweep before it is started: the keys are those of a sweep.",
    )
    parser.add_argument(
        "--seconds", type=float, help="after which no further optimizer of the catalogue is begun (120)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    options, rest = parser.parse_known_args(arguments)
    sweep = of_sweep(rest)
    check_overrides(sweep.overrides)
    name, overrides = sweep.config_name or "config", list(sweep.overrides)
    if not sweep.config_name and not any(o.lstrip("+").startswith("sweep.name=") for o in overrides):
        overrides.append("sweep.name=check")
    configs = cells(overrides, name, Path(sweep.config_dir) if sweep.config_dir else None)
    axes = axes_of(configs[0], overrides)
    arms = arms_from(configs, axes)
    workers = NUM_WORKERS("hydra.launcher.workers", OmegaConf.select(configs[0], "hydra.launcher.workers"))
    from optsweep import api
    from optsweep.launch.check.checked import plain

    with Console(stderr=True).status("") as status:
        found = api.check(arms, workers=workers, seconds=options.seconds, tell=lambda what: status.update(escape(what)))
    say_json(plain(found)) if options.json else print(found)
    if not found.ok:
        raise SystemExit(1)
