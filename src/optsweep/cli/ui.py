"""The verb `ui`: a sweep's pages in MLflow."""

from __future__ import annotations

from collections.abc import Sequence

from optsweep.address import tracking_address
from optsweep.cli.parser import Parser


def ui(arguments: Sequence[str]) -> None:
    """Serve the store, and say and show where the sweep is in it."""
    parser = Parser("optsweep ui", description="Browse a sweep, or all of them, in MLflow; Ctrl-C ends it.")
    parser.add_argument("sweep", nargs="?", metavar="NAME", help="of a sweep (default: the only one, or the list)")
    parser.add_argument("--port", type=int, default=5000, help="on 127.0.0.1, or the next free one (default: 5000)")
    parser.add_argument("--no-browser", action="store_true", help="say the address only")
    parser.add_argument("--tracking-uri", default=tracking_address())
    options = parser.parse_args(arguments)
    from optsweep.launch.ui import open_browser, show

    browse = (lambda address: None) if options.no_browser else open_browser
    show(options.tracking_uri, options.sweep, options.port, lambda line: print(line, flush=True), browse)
