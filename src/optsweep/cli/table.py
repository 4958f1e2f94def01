"""The verbs of the command line: what each is called, takes and does, and where it is. A new verb is a row here.

`--help` is made of the rows, so nothing heavy is imported; a verb is, when it is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Act = Callable[[Sequence[str]], Sequence[str] | None]


class HelpSection(StrEnum):
    """Where a verb stands in the help."""

    BEGIN = "Begin"
    LOOK = "Look"
    MEND = "Judge, share and mend"


@dataclass(frozen=True)
class Verb:
    """A row."""

    name: str
    takes: str  # its arguments in short
    does: str  # on the same line
    at: str  # module of optsweep.cli:function
    section: HelpSection

    def __call__(self, arguments: Sequence[str]) -> Sequence[str] | None:
        """Do it; what comes back is a command line to go on with."""
        module, _, name = self.at.partition(":")
        act: Act = vars(importlib.import_module(f"optsweep.cli.{module}"))[name]
        return act(arguments)


BEGIN, LOOK, MEND = HelpSection

_ROWS = (
    Verb("list", "[KIND]", "what there is to choose from, and the sweeps in the store", "listing:list_kind", BEGIN),
    Verb("suggest", "KEY=VALUE …", "learning rates, warm-up, decay for a task, with sources", "verbs:suggest", BEGIN),
    Verb("check", "KEY=VALUE …", "tries a sweep: model, data, optimizers, what it would cost", "check:check", BEGIN),
    Verb("new", "FOLDER", "a project of your own to start from, which runs as it is", "new:new", BEGIN),
    Verb("doctor", "", "whether a sweep can run here: versions, devices, stores, ports", "doctor:doctor", BEGIN),
    Verb("docs", "[PAGE]", "the pages of the guide, which come with the package", "docs:docs", BEGIN),
    Verb("status", "NAME", "how far a sweep is, who is at work, the last error", "verbs:status", LOOK),
    Verb("show", "NAME", "the verdict again", "runs:show", LOOK),
    Verb("watch", "NAME", "a sweep on the terminal until it ends, from any machine", "watch:watch", LOOK),
    Verb("ui", "[NAME] [--live|--optuna]", "its curves in MLflow; the report as it grows; its searches", "ui:ui", LOOK),
    Verb("report", "NAME … [--out DIR]", "writes the report again, of several sweeps together", "verbs:report", LOOK),
    Verb("work", "NAME", "further workers for a sweep, on any machine", "servers:work", MEND),
    Verb("move", "NAME --to-storage …", "takes a sweep to other stores, where it goes on", "servers:move", MEND),
    Verb("judge", "RUNS.csv --arm … …", "a verdict over runs made elsewhere: CSV, W&B, MLflow", "runs:judge", MEND),
    Verb("verify", "RESULTS.json", "runs some of a report's trials again and compares", "runs:verify", MEND),
    Verb("retry", "NAME", "runs again what a sweep has given up", "verbs:retry", MEND),
    Verb("sync", "NAME", "delivers trials that wait for a store that was away", "verbs:sync", MEND),
)

VERBS: Mapping[str, Verb] = {verb.name: verb for verb in _ROWS}

_SWEEP = """optsweep: which optimizer and learning-rate schedule should you use for your model?

Sweep; the same command again goes on where the last one stopped
  optsweep -cn NAME                       a question that comes along (optsweep list sweeps)
  optsweep -m optimizer=adamw,soap schedule=cosine,schedule_free warmup=linear weight_decay=none
  optsweep -m recipe=adamw_cosine,soap_schedulefree task=digits_mlp search.trials=8 sweep.name=mine
  optsweep optimizer=soap schedule=cosine optimizer.lr=3e-3 search=none    one plain training run
"""

_REST = """
Keys (all of them: optsweep --cfg job)
  task optimizer schedule warmup weight_decay averaging recipe     several with commas make a grid
  search.{trials,over,sampler,pruner}  search.space.KEY.{low,high,log}  confirm.{seeds,delta}
  sweep.{name,seed,baseline,repeats}  trainer.{steps,device,lanes,precision,clip_norm,rungs}
  optimizer.lr  weight_decay.value  warmup.steps  tracking.{uri,storage,checkpoints}  hydra.launcher.workers

Exit code
  0    done; of a sweep: its report is complete and current
  1    it ran, and something is wrong: every trial crashed, or check, verify or doctor found it
  2    not done, for a reason that is said in one line
  3    not done, and jobs on a cluster go on with it (hydra/launcher=slurm)
  130  you stopped it; what is finished is kept

Each verb has its own --help; the guide is here: optsweep docs
Completion by the Tab key, in bash: eval "$(optsweep -sc install=bash)"
"""


def _help() -> str:
    parts = [_SWEEP]
    for section in HelpSection:
        parts.append(f"\n{section}\n")
        rows = [verb for verb in _ROWS if verb.section is section]
        parts += [f"  {f'{verb.name} {verb.takes}':<27} {verb.does}\n" for verb in rows]
    return "".join([*parts, _REST])


HELP = _help()
"""All that there is, on one screen."""
