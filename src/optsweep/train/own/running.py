"""What a loop of the user's is handed: an optimizer, a budget, and whom to report to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from optsweep.groups import Patterns
from optsweep.optim.batch_norm import Call, on_first, recomputed, running_norms
from optsweep.optim.composition import Composition
from optsweep.optim.torch_optimizer import RECALIBRATION_BATCHES
from optsweep.tasks.nest import Nest, moved
from optsweep.train.own.batches import (
    Place,
    Seen,
    begins_again,
    endless,
    generators_kept,
    refuse_unseeded,
    seen,
    seen_at_first,
)
from optsweep.train.own.clock import Clock
from optsweep.train.own.faults import LoopError, Pruned, Stop, TrialOver
from optsweep.train.own.keeping import NOT_KEPT, Held, Keeping, Stateful
from optsweep.train.own.losses import Losses
from optsweep.train.own.optimizer import TrialOptimizer, groups_of
from optsweep.train.own.report import REQUIRED, Listener, Number, Reported, number_of, numbers_of
from optsweep.train.own.terms import Terms
from optsweep.train.process import isolated
from optsweep.train.randomness import EVALUATION_SEED, RECALIBRATION_SEED, Generators

MOST_IDLE = 1000
"""Batches without a step after which a loop is taken to have none."""


class RunningTrial:
    """A trial in a loop of one's own; docs/own-model.md walks through one.

    `steps` is the budget, `rungs` the steps after which to report, `hyper` the numbers of this trial, `seed` that of
    all its randomness, `test` whether a test loss is wanted, `rehearsal` whether this is the run that only looks
    whether everything fits.
    """

    def __init__(self, terms: Terms, composition: Composition, listen: Listener, keeping: Keeping = NOT_KEPT) -> None:
        self._terms, self._composition, self._listen = terms, composition, listen
        self.steps, self.rungs, self.hyper = terms.steps, terms.rungs, terms.hyper
        self.seed = terms.seed % 2**32  # numpy's generators take no more, and so whoever seeds them
        self.batch_size, self.device = terms.batch_size, terms.device
        self.test, self.rehearsal = terms.test, terms.rehearsal
        self.clock = Clock(terms.device)
        self.optimizers: list[TrialOptimizer] = []
        self.lead: TrialOptimizer | None = None  # the first that goes by the budget, whose norms are shown
        self.models: list[nn.Module] = []
        self.losses = Losses()
        self.seen: Seen | None = None
        self.tested: Reported | None = None
        self.finished = False
        self.marks: dict[int, float] = {}  # seconds of training, by the steps at which they are asked for
        self.failure: BaseException | None = None  # that the loop is not to keep
        self.unfit: Exception | None = None  # what was raised when it was to go on
        self._keeping = keeping
        self._held: Held | None = None
        self._places: list[Place] = []  # where each series of batches stands
        self._begun: list[Place] = []  # where they stood when the trial was kept
        self._evaluating = self._paused = False
        self._due = list(terms.rungs)
        self._budgets: list[int] = []
        self._reported = -1
        self._idle = 0
        self._loader: Iterable[Any] | None = None

    # -- training -----------------------------------------------------------------------------------------------------

    def optimizer(
        self, model: nn.Module, *, groups: Patterns | None = None, heads: Iterable[str] = (), steps: int | None = None
    ) -> TrialOptimizer:
        """The arm's optimizer of a model, which is moved to the trial's device.

        `groups` and `heads` as a task has them. May be called for several models, all of which the arm then trains;
        `steps` is for one that is stepped more or less often than the budget: the length of its own schedule.
        """
        with self._watched():
            if not isinstance(model, nn.Module):
                raise LoopError(f"trial.optimizer(model): it is {type(model).__name__}; give an nn.Module")
            if self._held is not None:
                raise LoopError("trial.optimizer(model): trial.resume() was called before it; call that after it")
            model.to(self.device)
            place, budget = len(self.optimizers), self.steps if steps is None else steps
            leads = self.lead is None and self._counts(budget)
            made = TrialOptimizer(
                groups_of(model, self.hyper, groups, heads),
                self._composed(budget),
                self.hyper,
                before_step=lambda done: self._before_step(place, done),
                after_step=self._after_step,
                watched=self._logs if leads else lambda step: False,
            )
            self.lead = made if leads else self.lead
            self.optimizers.append(made)
            self.models.append(model)
            self._budgets.append(budget)
            self.clock.start()
            return made

    def resume(self, *others: Stateful) -> int:
        """Go on from where the trial was kept, if it was, and let it be kept at reports; returns the steps done.

        Called once, after `optimizer` and before the first step. Kept are the models and optimizers of `optimizer`, the
        place of `batches`, the generators, and `others`: whatever else the loop would miss, each with `state_dict` and
        `load_state_dict`. A loop that doesn't call it starts from its beginning again.
        """
        with self._watched():
            if self._held is not None or not self.optimizers or self.done or self._places:
                raise LoopError("trial.resume(): call it once, after trial.optimizer(model) and before the first batch")
            self._held = Held(self.models, self.optimizers, others, self.device)
            if self.rehearsal:
                self._held.check()
        if (saved := self._keeping.saved) is not None:
            try:
                self._held.restore(saved)
            except Exception as error:
                self.unfit = error
                raise Stop from error
            self._begun = [Place(*numbers) for numbers in saved["places"]]
            self._reported, self._due = self.done, [rung for rung in self._due if rung > self.done]
            self.clock.go_on(saved["seconds"])
            self._keeping.went_on()
        return self.done

    def batches(self, loader: Iterable[Any]) -> Iterator[tuple[int, Nest]]:
        """(number of the coming step, batch on the device), epoch after epoch, until the budget is used up.

        Numbers begin at 1, and stay where the optimizer isn't stepped. All generators are seeded before each batch.
        """
        with self._watched():
            if self.rehearsal:
                refuse_unseeded(loader, self.device)
            self._loader = loader if begins_again(loader) else None
        series = len(self._places)
        begin = self._begun[series] if series < len(self._begun) else Place()
        self._places.append(begin)
        coming = endless(loader, self.seed, self.device, begin)
        while not self.over:
            with self._watched():
                self._places[series], batch = next(coming)
                if self.seen is None:
                    self.seen = seen(loader, batch)
                self._idle += 1
                if self._idle > MOST_IDLE:
                    raise LoopError(
                        f"trial.batches(loader): {MOST_IDLE} batches and no step; call step() of trial.optimizer(model)"
                    )
            yield self.done + 1, batch

    def sees(self, loader: DataLoader[Any]) -> None:
        """Say where the batches come from that another framework's loop draws, as `batches` knows it of its own."""
        with self._watched(), isolated(self.device), generators_kept(loader):
            if self.rehearsal:
                refuse_unseeded(loader, self.device)
            self._loader = loader if begins_again(loader) else None
            self.seen = self.seen or seen_at_first(loader, self.device)

    def log(self, *, train_loss: Number) -> None:
        """Keep the loss of a training step, which is not waited for."""
        if isinstance(train_loss, Tensor) and train_loss.numel() == 1:
            self.losses.add(self.done, train_loss.detach())
            return
        with self._watched():
            self.losses.add(self.done, number_of("trial.log(): train_loss", train_loss))

    @property
    def done(self) -> int:
        """Steps taken of the budget."""
        counts = [
            made.steps for made, budget in zip(self.optimizers, self._budgets, strict=True) if self._counts(budget)
        ]
        return min(counts, default=0)

    @property
    def over(self) -> bool:
        """Whether the budget is used up, or enough was seen."""
        return self.done >= (self.steps if self._terms.stop_after is None else self._terms.stop_after)

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def rung(self, step: int | None = None) -> bool:
        """Whether to evaluate and report now; `step`, if it is given, is checked to be the number of steps done."""
        with self._watched():
            done = self.done
            if step is not None and step != done:
                if step == done + 1:
                    return False  # it isn't taken yet
                raise LoopError(
                    f"trial.rung({step}): optimizer steps done: {done}; count steps from 1, or leave the number out"
                )
        asked = self._reported < 0 if done == 0 and step == 0 else bool(self._due) and done == self._due[0]
        if asked:
            self.clock.stop()
        return asked

    @contextmanager
    def evaluating(
        self, model: nn.Module, batches: Iterable[Any] | None = None, *, call: Call = on_first
    ) -> Iterator[None]:
        """Inside, `model` is what one would ship: averaged weights, batch norm recomputed, eval mode, no gradients.

        Batch-norm statistics are the mean over `batches`, by default the first ones of the loader that
        `trial.batches` was given, each a forward pass `call(model, batch)`; by default a dictionary as keywords, of a
        tuple or list the first item. What is drawn at random inside is the same in every evaluation.
        """
        self.clock.stop()
        seed = Generators(self.device).everything().seeder()
        with ExitStack() as stack:
            with self._watched():
                own = {id(parameter) for parameter in model.parameters()}
                shipped = [made for made in self.optimizers if made.trains(own)]
                if not shipped:
                    raise LoopError("trial.evaluating(model): none of its parameters is of an optimizer of this trial")
                batches = self._recalibration(model) if batches is None else batches
            stack.enter_context(isolated(self.device))
            stack.enter_context(torch.no_grad())
            stack.enter_context(generators_kept(self._loader))
            for made in shipped:
                stack.enter_context(made.swapped())
            seed(RECALIBRATION_SEED)
            norms = running_norms(model)
            some = (moved(batch, self.device) for batch in islice(batches, RECALIBRATION_BATCHES)) if norms else ()
            stack.enter_context(recomputed(model, some, call))
            seed(EVALUATION_SEED)
            self._evaluating = True
            try:
                yield
            finally:
                self._evaluating = False
        if self._paused:  # the report was inside, where the model isn't as it trains
            self._pause()
        if not self.over and self.done != next(iter(self._due), None):
            self.clock.start()

    def report(self, *, val_loss: Number = REQUIRED, **metrics: Number) -> None:
        """Tell the validation loss and the metric at a rung. Raises `TrialOver` if the trial is to end here."""
        with self._watched():
            self.clock.stop()
            done = self.done
            if val_loss is REQUIRED:
                raise LoopError("trial.report(): val_loss=… is missing, by which trials are compared")
            if done == self._reported:
                raise LoopError(f"trial.report(): step {done} was reported already")
            if done and (not self._due or done != self._due[0]):
                raise LoopError(f"trial.report(): step {done} is no rung; report where trial.rung(step) is true")
            said = Reported(
                done, number_of("trial.report(): val_loss", val_loss), numbers_of("trial.report()", metrics)
            )
            self._reported, self._due = done, [rung for rung in self._due if rung > done]
            if self._heard(said):
                raise Pruned
            for made in self.optimizers:
                made.observe(said.loss)
            if not self.over:
                self._paused = self._evaluating
                if not self._paused:
                    self._pause()
                self.clock.start()

    def finish(self, *, test_loss: Number | None = None, **metrics: Number) -> None:
        """The loop's last word: the loss and the metric on the test split, of the weights inside `evaluating`."""
        with self._watched():
            self.clock.stop()
            if not self.over:
                raise LoopError(
                    f"trial.finish(): {self.done} of {self.steps} steps are done; the budget is to be used up"
                )
            if self.finished:
                raise LoopError("trial.finish(): it was called already")
            self.finished = True
            if test_loss is not None:
                self.tested = Reported(
                    self.done, number_of("trial.finish(): test_loss", test_loss), numbers_of("trial.finish()", metrics)
                )

    def release(self) -> None:
        """Let go of models and optimizers, whose memory the next trial needs."""
        self.optimizers, self.models, self._budgets = [], [], []
        self.lead = self._loader = None

    # -- behind the scenes --------------------------------------------------------------------------------------------

    def _heard(self, said: Reported) -> bool:
        """Whether the trial ends with this report."""
        with self._leaving():
            return self._listen(said)

    def _pause(self) -> None:
        """After a report: let the trial be kept."""
        self._paused = False
        self.clock.stop()
        with self._leaving():
            self._keeping.pause(None if self._held is None else self._state)

    def _state(self) -> dict[str, Any]:
        """All that it goes on from."""
        assert self._held is not None
        places = [[place.epoch, place.seeds, place.taken] for place in self._places]
        return {**self._held.state(), "places": places, "seconds": self.clock.stop()}

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        """What others raise leaves the loop as `Stop`, whatever it does."""
        try:
            yield
        except LoopError:  # of the loop's own line
            raise
        except Exception as error:
            self.failure = self.failure or error
            raise Stop from error

    def _before_step(self, place: int, done: int) -> None:
        """Before a step of the optimizer at `place`, which has taken `done`."""
        with self._watched():
            if done >= self._budgets[place]:
                raise LoopError(
                    f"optimizer.step(): the budget of {self._budgets[place]} steps is used up; end the loop there, as "
                    f"trial.batches does"
                )
            if not any(map(self._counts, self._budgets)):
                raise LoopError(
                    "trial.optimizer(model, steps=…): one optimizer has to go by the budget; leave steps out for it"
                )
            counts = self._counts(self._budgets[place])
            if counts and self._due and done >= self._due[0]:
                raise LoopError(
                    f"optimizer.step(): step {self._due[0]} is a rung and nothing was reported; evaluate and call "
                    f"trial.report(val_loss=…) where trial.rung(step) is true"
                )
            if counts and self._terms.stop_after is not None and done >= self._terms.stop_after:
                raise Stop

    def _after_step(self) -> None:
        self._idle = 0
        if (done := self.done) in self._terms.timed and done not in self.marks:
            self.marks[done] = self.clock.stop()
            self.clock.start()
            if done == self._terms.timed[-1]:
                raise Stop

    def _counts(self, budget: int) -> bool:
        """Whether an optimizer's steps are the trial's."""
        return budget == self.steps

    def _logs(self, step: int) -> bool:
        """Whether norms of a step are kept."""
        return step % self._terms.log_every == 0 or bool(self._due and step == self._due[0])

    def _recalibration(self, model: nn.Module) -> Iterable[Any]:
        norms = running_norms(model)
        if norms and self._loader is None:
            raise LoopError(
                f"trial.evaluating(model): {next(iter(norms)) or 'the model'} is a batch norm, whose statistics are "
                f"recomputed at the evaluated weights; give batches=… (persistent workers and generators can't be "
                f"begun again meanwhile)"
            )
        return () if self._loader is None else self._loader

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """What is raised inside counts, whatever the loop does with it."""
        try:
            yield
        except TrialOver:
            raise
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def _composed(self, steps: int) -> Composition:
        return replace(self._composition, num_steps=steps)
