"""CIFAR-10 from its official binary archive, read in memory: nothing is unpacked to disk, nothing is unpickled."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from optsweep.checks import flag, number, optional, text, whole, wholes
from optsweep.errors import UserError, first_line
from optsweep.tasks.base import Facts, Split, Task, digest_of
from optsweep.tasks.classification import stratified
from optsweep.tasks.networks import ResNet
from optsweep.tasks.random import draws

SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
"""Of the official cifar-10-binary.tar.gz (170,052,171 bytes)."""

SIDE, CHANNELS, NUM_CLASSES = 32, 3, 10
RECORD = 1 + CHANNELS * SIDE * SIDE  # bytes: the class, then the image, channel by channel
PADDING = 4  # pixels to each side, of which a random crop is taken
NUM_CROPS = (2 * PADDING + 1) ** 2
NUM_VARIANTS = 2 * NUM_CROPS  # crops, plain and mirrored
CENTRE = NUM_CROPS // 2  # the crop without a shift
VAL_SHARE = 0.1  # of the archive's training images


class CIFAR10(Task):
    """Images `[N, 3, 32, 32]`, standardised; training images optionally shifted and mirrored at random.

    What is done to an image is part of its sample index (image · variants + variant), so that a batch is a pure
    function of its indices. The archive's test batch is the test split, a tenth of the rest is for validation.
    """

    head_modules = ("head",)
    chance_loss = float(np.log(NUM_CLASSES))

    def __init__(self, path: str | None, sha256: str | None, augment: bool, target_loss: float | None) -> None:
        self.augment = flag("task.augment", augment)
        self.target_loss = optional(number)("task.target_loss", target_loss)
        images, targets, test_images, test_targets = read_archive(
            optional(text)("task.path", path), optional(text)("task.sha256", sha256)
        )
        self.reads = (str(path),)
        rows = stratified(targets, val=VAL_SHARE, test=0.0)
        train, val = rows[Split.TRAIN], rows[Split.VAL]
        if not len(val):
            raise UserError(f"task.path: {path} has too few training images to set some aside for validation")
        self._digest = digest_of(images, targets, test_images, test_targets, val)
        self._mean = float(images[train].mean() / 255)
        self._std = float(images[train].std() / 255) or 1.0
        self._data: Mapping[Split, tuple[Tensor, Tensor]] = {
            Split.TRAIN: _tensors(images[train], targets[train], PADDING if augment else 0),
            Split.VAL: _tensors(images[val], targets[val]),
            Split.TEST: _tensors(test_images, test_targets),
        }

    def size(self, split: Split) -> int:
        """Number of images."""
        return len(self._data[split][1])

    def batch(self, split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(images `[..., 3, 32, 32]`, classes `[...]`)."""
        images, targets = self._data[split]
        if split is Split.TRAIN and self.augment:
            variants, indices = indices % NUM_VARIANTS, indices // NUM_VARIANTS
            crops, mirrored = variants % NUM_CROPS, variants // NUM_CROPS
            side = torch.arange(SIDE, device=images.device)
            rows = (crops // (2 * PADDING + 1)).unsqueeze(-1) + side
            columns = torch.where(mirrored.bool().unsqueeze(-1), side.flip(0), side)
            columns = columns + (crops % (2 * PADDING + 1)).unsqueeze(-1)
            # [..., 32, 32, 3]: the image, its rows and its columns are advanced indices, channels come last
            chosen = images[indices[..., None, None], :, rows[..., :, None], columns[..., None, :]]
            chosen = chosen.movedim(-1, -3)
        else:
            chosen = images[indices]
        return (chosen.float() / 255 - self._mean) / self._std, targets[indices]

    def train_indices(self, seed: int, first: int, num_steps: int, batch_size: int) -> NDArray[np.int64]:
        """As any task's, with a random variant for each sample where images are augmented."""
        indices = super().train_indices(seed, first, num_steps, batch_size)
        if not self.augment:
            return indices
        variants = draws(seed, first * batch_size, num_steps * batch_size, NUM_VARIANTS)
        return indices * NUM_VARIANTS + variants.reshape(indices.shape)

    def eval_indices(self, split: Split, batch_size: int) -> Sequence[NDArray[np.int64]]:
        """All images as they are."""
        chunks = super().eval_indices(split, batch_size)
        if split is Split.TRAIN and self.augment:
            return [chunk * NUM_VARIANTS + CENTRE for chunk in chunks]
        return chunks

    def to(self, device: torch.device) -> None:
        """Move images (bytes) and classes."""
        self._data = {split: (x.to(device), y.to(device)) for split, (x, y) in self._data.items()}

    def digest(self) -> str:
        """Hash of images, classes and splits."""
        return self._digest


class CIFAR10ResNet(CIFAR10):
    """A residual network of 6 · blocks + 2 layers (He 2016, section 4.2); 3 blocks a stage is ResNet-20."""

    def __init__(
        self,
        *,
        path: str | None = None,
        sha256: str | None = SHA256,
        augment: bool = True,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 3,
        reference_batch_size: int = 128,
        target_loss: float | None = None,
    ) -> None:
        self.widths, self.blocks = wholes("task.widths", widths), whole("task.blocks", blocks)
        reference = whole("task.reference_batch_size", reference_batch_size)
        super().__init__(path, sha256, augment, target_loss)
        self.facts = Facts("resnet", "complex", reference, deep=self.blocks > 5, fan_in=9 * self.widths[-1])

    def model(self) -> nn.Module:
        """The network."""
        return ResNet(CHANNELS, self.widths[0], self.widths, self.blocks, NUM_CLASSES)


class CIFAR10WRN(CIFAR10):
    """Wide ResNet (Zagoruyko 2016): `depth` = 6n + 4 layers, `widen` times as wide, no dropout."""

    def __init__(
        self,
        *,
        path: str | None = None,
        sha256: str | None = SHA256,
        augment: bool = True,
        depth: int = 16,
        widen: int = 4,
        reference_batch_size: int = 128,
        target_loss: float | None = None,
    ) -> None:
        self.depth, self.widen = whole("task.depth", depth, low=10), whole("task.widen", widen)
        if (depth - 4) % 6:
            raise UserError(f"task.depth: {depth} is not allowed; give 6n + 4: 10, 16, 22, 28, 34, 40, …")
        reference = whole("task.reference_batch_size", reference_batch_size)
        super().__init__(path, sha256, augment, target_loss)
        self.facts = Facts("resnet", "complex", reference, deep=depth > 28, fan_in=9 * 64 * widen)

    def model(self) -> nn.Module:
        """The network."""
        widths = [16 * self.widen, 32 * self.widen, 64 * self.widen]
        return ResNet(CHANNELS, 16, widths, (self.depth - 4) // 6, NUM_CLASSES, preactivation=True)


Bytes = NDArray[np.uint8]
Classes = NDArray[np.int64]


def read_archive(path: str | None, sha256: str | None) -> tuple[Bytes, Classes, Bytes, Classes]:
    """Training images `[N, 3, 32, 32]` and classes `[N]`, then those for the test, of a binary CIFAR-10 archive.

    Raises UserError if there is no such archive, if it has another digest than `sha256` (None: any), or if it isn't
    what it should be.
    """
    if not path:
        raise UserError("task.path: give the path of cifar-10-binary.tar.gz (from www.cs.toronto.edu/~kriz/cifar.html)")
    archive = Path(path).expanduser()
    if not archive.is_file():
        raise UserError(f"task.path: there is no file {archive}; give the path of cifar-10-binary.tar.gz")
    if sha256 is not None:
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != str(sha256).lower():
            raise UserError(f"task.sha256: {archive} has {found}, not {sha256}; get it again, or give its own digest")
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and name.endswith(".bin") and (stream := tar.extractfile(member)):
                    parts[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"task.path: {archive} can't be read as a tar archive ({first_line(error)})") from None
    train = b"".join(parts[name] for name in sorted(parts) if name.startswith("data_batch"))
    test = parts.get("test_batch.bin", b"")
    for name, records in (("data_batch_*.bin", train), ("test_batch.bin", test)):
        if not records or len(records) % RECORD:
            raise UserError(
                f"task.path: {name} in {archive} has {len(records)} bytes, not a multiple of {RECORD}; "
                f"this is not the binary version of CIFAR-10"
            )
    return (*_records(train, archive), *_records(test, archive))


def _records(data: bytes, archive: Path) -> tuple[Bytes, Classes]:
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    targets = records[:, 0].astype(np.int64)
    if targets.max() >= NUM_CLASSES:
        raise UserError(f"task.path: {archive} has the class {targets.max()}; CIFAR-10 has classes 0 to 9")
    return records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE), targets


def _tensors(images: Bytes, targets: Classes, padding: int = 0) -> tuple[Tensor, Tensor]:
    """Images with a black border, and classes."""
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    return torch.from_numpy(padded), torch.from_numpy(targets)
