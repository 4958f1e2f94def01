"""Byte-level language modelling: predict the next byte of source code or of any text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from optsweep.checks import flag, number, optional, text, whole
from optsweep.errors import UserError
from optsweep.tasks.base import Facts, Split, Task, digest_of
from optsweep.tasks.corpus import Corpus, standard_library, text_file
from optsweep.tasks.random import draws
from optsweep.tasks.transformer import Transformer, check_heads

VOCABULARY = 256
DEEP = 12
"""Layers from which a transformer counts as deep (deck: LR × 0.5)."""


class ByteText(Task):
    """Next-byte prediction on a corpus with a transformer; loss in nats per byte.

    A training sample is a window at any offset, drawn at random; an epoch is as many windows as fit side by side.
    Validation and test are windows at fixed, even distances.
    """

    chance_loss = float(np.log(VOCABULARY))
    loss_unit = "nats/byte"
    head_modules = ("head",)

    def __init__(
        self,
        corpus: Corpus,
        *,
        width: int,
        layers: int,
        heads: int,
        context: int,
        tied: bool,
        reference_batch_size: int,
        val_windows: int,
        test_windows: int,
        target_loss: float | None,
        mup_base: int | None,
    ) -> None:
        self.width, self.layers, self.heads = (
            whole("task.width", width),
            whole("task.layers", layers),
            whole("task.heads", heads),
        )
        self.context, self.tied = whole("task.context", context), flag("task.tied", tied)
        self.mup_base = optional(whole)("task.mup_base", mup_base)
        check_heads(width, heads)
        self.target_loss = optional(number)("task.target_loss", target_loss)
        reference = whole("task.reference_batch_size", reference_batch_size)
        self.facts = Facts("transformer", "complex", reference, deep=layers >= DEEP, fan_in=width)
        self.origin = corpus.origin
        wanted = {
            Split.VAL: whole("task.val_windows", val_windows),
            Split.TEST: whole("task.test_windows", test_windows),
        }
        data = {split: np.frombuffer(corpus.splits[split], np.uint8) for split in Split}
        for split, array in data.items():
            if len(array) <= context:
                raise UserError(
                    f"task.context: {context} bytes do not fit into the {split} split, which has {len(array)}; "
                    f"give a shorter context or more text"
                )
        self._sizes = {split: (len(array) - 1) // context for split, array in data.items()}
        for split, count in wanted.items():
            self._sizes[split] = min(count, self._sizes[split])
        self._starts = {split: _even(len(data[split]) - context, self._sizes[split]) for split in wanted}
        self._digest = digest_of(*data.values(), *self._starts.values(), corpus.origin.encode())
        self._num_starts = len(data[Split.TRAIN]) - context
        self._bytes: Mapping[Split, Tensor] = {split: torch.from_numpy(array.copy()) for split, array in data.items()}
        self._windows: dict[Split, Tensor] = {}
        self.to(torch.device("cpu"))

    def model(self) -> nn.Module:
        """The transformer."""
        return Transformer(
            vocabulary=VOCABULARY,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            context=self.context,
            tied=self.tied,
            mup_base=self.mup_base,
        )

    def size(self, split: Split) -> int:
        """Number of windows."""
        return self._sizes[split]

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(bytes, next bytes), int64 `[..., context]` each, of the windows that start at byte `indices [...]`."""
        windows = self._windows[split][indices].long()
        return windows[..., :-1], windows[..., 1:]

    def to(self, device: torch.device) -> None:
        """Move the bytes to `device`; windows are overlapping views of them."""
        self._bytes = {split: data.to(device) for split, data in self._bytes.items()}
        self._windows = {split: data.unfold(0, self.context + 1, 1) for split, data in self._bytes.items()}

    def digest(self) -> str:
        """Hash of all bytes, of the evaluated windows and of the interpreter's version."""
        return self._digest

    def train_indices(self, seed: int, first: int, num_steps: int, batch_size: int) -> NDArray[np.int64]:
        """First bytes of the windows, `[num_steps, batch_size]`.

        Sample n of a run is number n of a Philox stream keyed by the seed, so any stretch can be drawn without those
        before it. A batch of the whole training set is the same windows side by side in every step.
        """
        if batch_size == self.size(Split.TRAIN):
            return np.tile(np.arange(batch_size) * self.context, (num_steps, 1))
        starts = draws(seed, first * batch_size, num_steps * batch_size, self._num_starts)
        return starts.reshape(num_steps, batch_size)

    def eval_indices(self, split: Split, batch_size: int) -> list[NDArray[np.int64]]:
        """First bytes of the windows to evaluate, in chunks of at most `batch_size`."""
        starts = np.arange(self.size(split)) * self.context if split is Split.TRAIN else self._starts[split]
        return [starts[i : i + batch_size] for i in range(0, len(starts), batch_size)]


class CharLM(ByteText):
    """Next byte of the source text of Python's standard library: real text that every machine has."""

    reads = ()

    def __init__(
        self,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        context: int = 64,
        tied: bool = False,
        reference_batch_size: int = 16,
        val_windows: int = 128,
        test_windows: int = 1024,
        max_bytes: int | None = None,
        target_loss: float | None = None,
        mup_base: int | None = None,
    ) -> None:
        corpus = standard_library(optional(whole, low=100_000)("task.max_bytes", max_bytes))
        super().__init__(
            corpus,
            width=width,
            layers=layers,
            heads=heads,
            context=context,
            tied=tied,
            reference_batch_size=reference_batch_size,
            val_windows=val_windows,
            test_windows=test_windows,
            target_loss=target_loss,
            mup_base=mup_base,
        )


class Text(ByteText):
    """Next byte of a file of the user's; its first 90 % are for training, then 5 % for validation, 5 % for test."""

    def __init__(
        self,
        *,
        path: str | None = None,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        context: int = 64,
        tied: bool = False,
        reference_batch_size: int = 32,
        val_windows: int = 256,
        test_windows: int = 2048,
        target_loss: float | None = None,
        mup_base: int | None = None,
    ) -> None:
        self.reads = (str(path),)
        super().__init__(
            text_file(optional(text)("task.path", path), whole("task.context", context)),
            width=width,
            layers=layers,
            heads=heads,
            context=context,
            tied=tied,
            reference_batch_size=reference_batch_size,
            val_windows=val_windows,
            test_windows=test_windows,
            target_loss=target_loss,
            mup_base=mup_base,
        )


def _even(num_starts: int, count: int) -> NDArray[np.int64]:
    """`count` offsets below `num_starts` at even distances."""
    return np.arange(count, dtype=np.int64) * num_starts // count
