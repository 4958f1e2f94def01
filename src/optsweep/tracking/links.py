"""Addresses of pages in MLflow's UI, as whoever prints or writes one has them.

Without `workflowType` MLflow shows an experiment, and a run too, among its pages for agents, where no curve is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from optsweep.address import TRACKING_KEY, read_address

LOCAL_HOST, LOCAL_PORT = "127.0.0.1", 5000
"""Where `optsweep ui` serves a store that no server has."""

LIVE_PORT = 5001
"""Of a live page, which has links to the runs: to where `optsweep ui` serves them beside it."""

TRAINING = "workflowType=machine_learning"
FIRST_VIEW = "verdict"


def address_of_ui(tracking_uri: str) -> str:
    """Where a browser finds the runs of a store; nobody's password is in it."""
    address = read_address(TRACKING_KEY, tracking_uri)
    return address.text if address.is_server else f"http://{LOCAL_HOST}:{LOCAL_PORT}"


def all_sweeps() -> str:
    """The list of experiments."""
    return f"/#/experiments?{TRAINING}"


def sweep_page(experiment_id: str, view: str = FIRST_VIEW) -> str:
    """The charts of a sweep, as a prepared view has them (views.py).

    Nothing that chooses runs may stand in it: MLflow takes such an address for one that was changed by hand, and leaves
    the view out.
    """
    return f"/#/experiments/{experiment_id}/runs?{TRAINING}&compareRunsMode=CHART&viewStateShareKey={view}"


def run_page(experiment_id: str, run_id: str) -> str:
    """One run."""
    return f"/#/experiments/{experiment_id}/runs/{run_id}?{TRAINING}"


def artifact_page(experiment_id: str, run_id: str, path: str) -> str:
    """A file of a run, as MLflow shows it beside the others."""
    return f"/#/experiments/{experiment_id}/runs/{run_id}/artifacts/{quote(path)}?{TRAINING}"


def compared(runs: Sequence[str], experiment_id: str) -> str:
    """One run, or several side by side."""
    if len(runs) == 1:
        return run_page(experiment_id, runs[0])
    lists = (quote(json.dumps(held, separators=(",", ":"))) for held in (list(runs), [experiment_id]))
    return "/#/compare-runs?runs={}&experiments={}".format(*lists) + f"&{TRAINING}"
