"""The `optsweep` command: its entry point and its help. `--help` answers without importing anything heavy."""

from __future__ import annotations

import os
import signal
import sys
import threading

from optsweep.garbage import look_seldom
from optsweep.terminal import replace_what_cannot_be_shown

SOON = 0.05
"""Seconds after which an interrupt comes again that nobody could hear."""

HELP = """optsweep: which optimizer and learning-rate schedule should you use for your model?

Sweep
  optsweep -cn NAME                      a question from sweeps/, such as soap_schedulefree_vs_adamw_cosine
  optsweep -m optimizer=adamw,soap schedule=cosine,schedule_free warmup=linear weight_decay=none,decoupled
  optsweep -m recipe=adamw_cosine,soap_schedulefree task=digits_mlp search.trials=8 confirm.seeds=5 sweep.name=mine
  optsweep optimizer=soap schedule=cosine optimizer.lr=3e-3 search=none        one plain training run
  The same command again goes on where the last one stopped.

Begin
  optsweep new NAME [--kind pieces|loop|huggingface]      a project of your own to start from, which runs as it is
  optsweep check task=TASK optimizer=adamw,soap …         tries a sweep: model, data, optimizers, what it would cost

Look
  optsweep report NAME [NAME …] [--out DIR]     write a sweep's report again
  optsweep show NAME [--json]                   the verdict again
  optsweep ui [NAME] [--port 5000]              its curves, trials and figures in MLflow, on this machine
  optsweep status NAME                          how far a sweep is
  optsweep judge RUNS.csv --arm COLUMN --metric COLUMN [--seed COLUMN] …    a verdict over runs made elsewhere: CSV, W&B
                                         export, mlflow:EXPERIMENT; optsweep judge --help, docs/judge.md
  optsweep verify reports/NAME/results.json [--share 0.1]                   runs some of its trials again and compares
  optsweep retry NAME                           run again what a sweep has given up
  optsweep sync NAME                            deliver trials that wait for a store that was away, and report
  optsweep work NAME --storage … --tracking-uri …             more workers for it, on any machine: docs/deploy
  optsweep move NAME --to-storage … --to-tracking-uri …       takes it from files to servers, and back
  optsweep suggest task=TASK optimizer=NAME …   suggested learning rates, warm-up and weight decay, with their sources

Keys (all of them: optsweep --cfg job)
  task optimizer schedule warmup weight_decay averaging recipe     choices; several with commas make a grid
  search.trials  search.over  search.space.KEY.{low,high,log}  search.sampler  search.pruner
  confirm.{seeds,delta}  sweep.repeats (a number, or auto)  sweep.{name,seed,baseline}
  tracking.uri  hydra.launcher.workers
  trainer.{steps,device,lanes,precision,clip_norm,rungs,log_every}
  optimizer.lr  weight_decay.value  warmup.steps (a number, or a fraction of the run)

The guide is README.md; the catalogue of everything to choose from is docs/catalogue.md.
"""


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    replace_what_cannot_be_shown()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _say(HELP)
        raise SystemExit(0)
    if "--version" in arguments:
        from optsweep import __version__

        _say(f"optsweep {__version__}\n")
        raise SystemExit(0)
    look_seldom()
    hear_every_interrupt()
    try:
        from optsweep.cli.doorman import run

        code = run(arguments)
    except KeyboardInterrupt:  # while that is imported
        code = 130
    raise SystemExit(code)


def hear_every_interrupt() -> None:
    """Raise a Ctrl-C again that fell into a finalizer, or a weak reference's callback, where Python would drop it."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            again = threading.Timer(SOON, os.kill, (os.getpid(), signal.SIGINT))  # at once it would end in here
            again.daemon = True
            again.start()
        else:
            before(unraisable)

    sys.unraisablehook = hook


def _say(text: str) -> None:
    """Write it, for as much as the reader wants of it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
