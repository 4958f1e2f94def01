"""The report of a sweep: reads MLflow, states the verdict, draws the figures, writes one page.

`write_report` is the only door; `helpers` are processes that draw with it. mlflow and matplotlib are imported when it
is called, because they take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optsweep.report.processes import Helpers, HelpersOnCall, helpers
from optsweep.tracking.store import SweepNotFound

__all__ = ["Helpers", "HelpersOnCall", "Report", "SweepNotFound", "helpers", "write_report"]


@dataclass(frozen=True)
class Report:
    """A written report, and what of it a terminal can show."""

    index: Path
    verdicts: tuple[str, ...]  # what holds across groups first, then one paragraph per task or other setting
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # one per arm
    partial: bool  # planned trials are still missing

    @property
    def summary(self) -> str:
        """What is said on a terminal: the verdicts, and where the report is."""
        return "".join(f"\n{sentence}\n" for sentence in self.verdicts) + f"\nreport: {self.index}"


def write_report(
    tracking_uri: str,
    sweeps: Sequence[str],
    out: Path,
    *,
    attach: bool = True,
    helped: Helpers | None = None,
    pdf: bool = False,
) -> Report:
    """Write index.html, figures/, results.json, results.csv and references.bib of `sweeps` into the folder `out`.

    `helped` by `helpers(PROCESSES)`, figures are drawn by several processes; from a script that needs the guard
    `if __name__ == "__main__"`, as multiprocessing does. With `pdf` every figure is there as PDF too, fonts embedded.

    With `attach` the folder also goes to MLflow, as artifacts `report/` of the sweep's run; a report of several sweeps
    belongs to none of them and isn't attached. Raises SweepNotFound (a ValueError), which names the nearest sweeps.
    """
    from optsweep.report import write
    from optsweep.tracking import store
    from optsweep.tracking.reader import load_sweep

    if not sweeps:
        raise SweepNotFound("sweep.name: name at least one sweep to report")
    store.check_store(tracking_uri)
    client = store.client(tracking_uri)
    wanted = [(name, store.find_experiment(client, name)) for name in dict.fromkeys(sweeps)]
    loaded = [load_sweep(client, name, experiment) for name, experiment in wanted]
    report = write.write(loaded, tracking_uri, out, helped, pdf=pdf)
    if attach and len(loaded) == 1 and loaded[0].run_id:
        client.log_artifacts(loaded[0].run_id, str(out), "report")
    return report
