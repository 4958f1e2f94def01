"""Every task of conf/task/ is held to the contract of `Task`; a new YAML is tested by being there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import yaml
from torch.func import functional_call, vmap

from kinds import Plain
from optsweep.build.suggestions import TaskFacts, suggest_all
from optsweep.tasks.base import IGNORED, Split, Task
from task_builder import CIFAR, CONF, NAMES, SMALL, batch_of, builder, model_of


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Task]:
    return builder(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", NAMES)
def test_yaml_names_itself_and_its_budget(name: str) -> None:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert config["name"] == name
    assert config["steps"] >= 100
    assert config["batch_size"] == "full" or config["batch_size"] >= 1
    assert (CONF / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("name", SMALL)
def test_facts_and_labels(name: str, build: Callable[..., Task]) -> None:
    task = build(name)
    assert task.facts.architecture in ("mlp", "cnn", "resnet", "transformer", "linear", "surface")
    assert task.facts.reference_batch_size >= 1
    modules = dict(task.model().named_modules())
    assert all(head in modules for head in task.head_modules)
    assert task.digest() == task.digest()
    assert len(task.digest()) == 16


@pytest.mark.parametrize("name", SMALL)
def test_batches_are_a_pure_function_of_seed_and_step(name: str, build: Callable[..., Task]) -> None:
    task = build(name)
    size = 7
    whole = task.train_indices(3, 0, 40, size)
    assert whole.shape == (40, size)
    for first in (0, 1, 13, 39):
        np.testing.assert_array_equal(task.train_indices(3, first, 1, size)[0], whole[first])
    assert not np.array_equal(task.train_indices(4, 0, 40, size), whole)
    x, y = batch_of(task, 3, 13, size)
    again, _ = task.batch(Split.TRAIN, torch.from_numpy(whole))
    assert x.shape[0] == y.shape[0] == size
    assert torch.equal(again[13], x)
    assert again.shape == (40, *x.shape)


@pytest.mark.parametrize("name", SMALL)
def test_evaluation_covers_a_split_once(name: str, build: Callable[..., Task]) -> None:
    task = build(name)
    for split in Split:
        chunks = task.eval_indices(split, 50)
        assert sum(len(chunk) for chunk in chunks) == task.size(split)
        assert len(np.unique(np.concatenate(chunks))) == task.size(split)
        assert max(len(chunk) for chunk in chunks) <= 50
        x, y = task.batch(split, torch.from_numpy(chunks[-1]))
        assert len(x) == len(y) == len(chunks[-1])


@pytest.mark.parametrize("name", SMALL)
def test_one_sample_and_full_batch(name: str, build: Callable[..., Task]) -> None:
    task = build(name)
    assert task.train_indices(0, 5, 2, 1).shape == (2, 1)
    if name in CIFAR:
        return  # their images vary at random
    size = task.size(Split.TRAIN)
    full = task.train_indices(0, 5, 2, size)
    np.testing.assert_array_equal(np.sort(full[0]), np.sort(full[1]))
    assert len(np.unique(full[0])) == size


@pytest.mark.parametrize("name", SMALL)
def test_lanes_equal_single_models(name: str, build: Callable[..., Task]) -> None:
    """vmap over three models with functional_call gives the losses, gradients and buffers of the models alone."""
    task = build(name)
    models = [model_of(task, seed).double() for seed in range(3)]
    x, y = batch_of(task, 0, 0, 4)
    x = x.double() if x.is_floating_point() else x
    params = {
        n: torch.stack([dict(m.named_parameters())[n].detach() for m in models])
        for n, _ in models[0].named_parameters()
    }
    buffers = {n: torch.stack([dict(m.named_buffers())[n] for m in models]) for n, _ in models[0].named_buffers()}
    for value in params.values():
        value.requires_grad_()

    def loss(p: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = functional_call(models[0], (p, b), (x,))
        return task.loss(outputs, y), task.score(outputs, y)

    template = {n: b.clone() for n, b in models[0].named_buffers()}
    losses, scores = vmap(loss, randomness="error")(params, buffers)
    losses.sum().backward()
    assert all(torch.equal(b, template[n]) for n, b in models[0].named_buffers())
    for lane, model in enumerate(models):
        outputs = model(x)
        alone = task.loss(outputs, y)
        alone.backward()
        torch.testing.assert_close(losses[lane], alone, rtol=0, atol=1e-10)
        torch.testing.assert_close(scores[lane], task.score(outputs, y), rtol=0, atol=1e-6)
        for n, p in model.named_parameters():
            grads = params[n].grad
            assert grads is not None
            torch.testing.assert_close(grads[lane], p.grad, rtol=0, atol=1e-9)
        for n, b in model.named_buffers():
            torch.testing.assert_close(buffers[n][lane], b, rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("name", SMALL)
def test_loss_starts_near_chance_and_falls(name: str, build: Callable[..., Task]) -> None:
    task = build(name)
    model = model_of(task)
    x, y = batch_of(task, 0, 0, 32)
    losses = []
    for _ in range(6):
        model.zero_grad()
        loss = task.loss(model(x), y)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                p.sub_(0.05 * p.grad)
    if task.chance_loss is not None:
        assert losses[0] == pytest.approx(task.chance_loss, rel=0.12)
    assert losses[-1] < losses[0]


def test_suggestions_work_for_every_task(build: Callable[..., Task]) -> None:
    for name in SMALL:
        task = build(name)
        facts = TaskFacts(task.size(Split.TRAIN), 32, 400, task.facts.architecture, task.facts.data_type)
        assert suggest_all("adamw", "cosine", "decoupled", facts)


@pytest.mark.parametrize("name", ["digits_mlp", "charlm_tiny"])
def test_losses_of_all_lanes_at_once_are_bitwise_those_under_vmap(name: str, build: Callable[..., Task]) -> None:
    task = build(name)
    generator = torch.Generator().manual_seed(0)
    shape = (3, 64) if name == "digits_mlp" else (3, 4, 16)
    outputs = 3 * torch.randn(*shape, 10, generator=generator)
    targets = torch.randint(0, 10, shape, generator=generator)
    targets[1, 0] = IGNORED
    assert task.lane_losses is not None
    found = []
    for function in (task.lane_losses, vmap(task.loss)):
        leaf = outputs.clone().requires_grad_()
        losses = function(leaf, targets)
        losses.sum().backward()
        found.append((losses.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_loss_of_one_s_own_stays_under_vmap(build: Callable[..., Task], monkeypatch: pytest.MonkeyPatch) -> None:
    task = build("iris_mlp")
    assert task.lane_losses is not None
    assert Plain().lane_losses is None
    monkeypatch.setattr(task, "loss", lambda outputs, targets: outputs.mean())
    assert task.lane_losses is None
