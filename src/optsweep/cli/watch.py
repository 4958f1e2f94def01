"""The verb `watch`: a sweep on this terminal while it runs, here or elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from optsweep.address import tracking_address
from optsweep.cli.parser import Parser
from optsweep.config.arm import Arm


def watch(arguments: Sequence[str]) -> None:
    """Show a sweep until it ends; then as its own command ends."""
    parser = Parser(
        "optsweep watch", description="Watch a sweep until it ends: from any machine that reaches its stores."
    )
    parser.add_argument("sweep", metavar="NAME")
    parser.add_argument("--storage", default=Arm.storage)
    parser.add_argument("--tracking-uri", default=tracking_address())
    options = parser.parse_args(arguments)
    from optsweep.launch.live.reading import Watching
    from optsweep.launch.live.terminal import watch as shown

    shown(Watching(options.storage, options.tracking_uri, options.sweep), sys.stdout)
