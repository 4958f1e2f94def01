"""The verb `ui`: a sweep's pages in MLflow, or its report while it grows."""

from __future__ import annotations

from collections.abc import Sequence

from optsweep.address import tracking_address
from optsweep.cli.parser import Parser
from optsweep.config.arm import Arm
from optsweep.errors import UserError


def ui(arguments: Sequence[str]) -> None:
    """Serve the store, and say and show where the sweep is in it."""
    parser = Parser("optsweep ui", description="Browse a sweep, or all of them, in MLflow; Ctrl-C ends it.")
    parser.add_argument("sweep", nargs="?", metavar="NAME", help="of a sweep (default: the only one, or the list)")
    parser.add_argument("--optuna", action="store_true", help="the searches in Optuna's dashboard (extra dashboard)")
    parser.add_argument("--port", type=int, help="on 127.0.0.1, or the next free one (default: 5000, with --live 5001)")
    parser.add_argument("--no-browser", action="store_true", help="say the address only")
    parser.add_argument("--live", action="store_true", help="its report instead, growing while it runs")
    parser.add_argument("--tracking-uri", default=tracking_address())
    parser.add_argument("--storage", default=Arm.storage, help="of the studies, for --live and --optuna")
    options = parser.parse_args(arguments)
    if options.live and (options.optuna or options.sweep is None):
        raise UserError("ui: --live needs the NAME of a sweep, and goes without --optuna")
    from optsweep.launch.browse.ui import open_browser
    from optsweep.tracking.links import LIVE_PORT, LOCAL_PORT

    usual = LIVE_PORT if options.live else LOCAL_PORT
    port = usual if options.port is None else options.port
    browse = (lambda address: None) if options.no_browser else open_browser
    if options.live:
        from optsweep.launch.live.reading import Watching
        from optsweep.launch.live.server import serve

        watching = Watching(options.storage, options.tracking_uri, options.sweep)
        serve(watching, port, _tell, browse)
    elif options.optuna:
        from optsweep.launch.browse.dashboard import show_studies

        show_studies(options.storage, options.sweep, port, _tell, browse)
    else:
        from optsweep.launch.browse.ui import show

        show(options.tracking_uri, options.sweep, port, _tell, browse)


def _tell(line: str) -> None:
    print(line, flush=True)
