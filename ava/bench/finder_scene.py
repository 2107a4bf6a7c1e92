"""What learning-rate finders search on: a small training, whole or as it stands after 20 steps, and what it holds.

It has all that a search can disturb: batch normalization (one of two frozen), dropout, AdamW's moments, two groups
whose rates differ by a factor of 10, a loader with a generator of its own, and batches that are altered with numpy's
and Python's random numbers.
"""

from __future__ import annotations

import copy
import functools
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from ava import rng
from ava.data.digits import digits

LR, RATIO = 1e-3, 10.0
"""The rate of the head, and how many times that of the body it is."""
BATCH, NUM_BATCHES, NUM_CLASSES = 32, 120, 10
Collate = Callable[[list[tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Scene:
    """A training.

    Attributes:
        model: digits of shape (B, 1, 8, 8) -> (B, 10).
        optimizer: AdamW; the head has the optimizer's rate, the body a tenth of it.
        loader: of (inputs, targets), shuffled by `generator`.
        generator: of the loader's order.
        loss_fn: (outputs, targets) -> scalar.
    """

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    loader: DataLoader[Any]
    generator: torch.Generator
    loss_fn: Callable[[Tensor, Tensor], Tensor]


def fresh(seed: int, *, num_batches: int = NUM_BATCHES, learnable: bool = True) -> Scene:
    """A training before its first step; seeds the process.

    Args:
        seed: of weights, order and all noise.
        num_batches: what one pass of the loader yields.
        learnable: otherwise the targets are noise of ten times the outputs' size, drawn anew for each batch.
    """
    rng.seed(seed)
    body = [
        nn.Flatten(), nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2),
    ]  # fmt: skip
    head = nn.Linear(128, NUM_CLASSES)
    of_body = [parameter for module in body for parameter in module.parameters()]
    groups: list[dict[str, Any]] = [{"params": list(head.parameters())}, {"params": of_body, "lr": LR / RATIO}]
    generator = torch.Generator().manual_seed(seed)
    samples = TensorDataset(*_samples()[:2])
    order = RandomSampler(samples, num_samples=num_batches * BATCH, generator=generator)
    collate: Collate = _altered if learnable else _unlearnable
    loader = DataLoader(samples, BATCH, sampler=order, generator=generator, collate_fn=collate)
    loss_fn = nn.functional.cross_entropy if learnable else nn.functional.mse_loss
    return Scene(nn.Sequential(*body, head), torch.optim.AdamW(groups, lr=LR), loader, generator, loss_fn)


def begun(seed: int) -> Scene:
    """A training after 20 steps, with one batch normalization frozen as in fine-tuning."""
    scene = fresh(seed)
    train(scene, 20)
    scene.model[2].eval()
    return scene


def train(scene: Scene, num_steps: int, each: Callable[[], Any] = lambda: None) -> None:
    """The bare loop; `each` is called after every step."""
    for inputs, targets in itertools.islice(_endless(scene.loader), num_steps):
        scene.optimizer.zero_grad()
        scene.loss_fn(scene.model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        scene.optimizer.step()
        each()


@torch.no_grad()
def validation_loss(scene: Scene) -> float:
    """The mean loss over the validation half, unaltered."""
    _, _, inputs, targets = _samples()
    scene.model.eval()
    return float(scene.loss_fn(scene.model(inputs), targets))


def holdings(scene: Scene) -> dict[str, Any]:
    """All that a search has to leave as it was, copied: what -> its value, to be compared with `are_equal`."""
    model, state = scene.model, scene.optimizer.state_dict()
    return {
        "weights": [p.detach().clone() for p in model.parameters()],
        "buffers (BatchNorm)": [b.clone() for b in model.buffers()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "train/eval modes": [m.training for m in model.modules()],
        "optimizer's state": copy.deepcopy(state["state"]),
        "groups' rates and options": copy.deepcopy(state["param_groups"]),
        "torch's random numbers": torch.get_rng_state(),
        "numpy's random numbers": np.random.get_state(),
        "Python's random numbers": random.getstate(),
        "loader's next order": _next_order(scene),
    }


def are_equal(one: Any, other: Any) -> bool:
    """Whether two trees of tensors, arrays and plain values are the same, bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and _bytes(one) == _bytes(other)
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(are_equal, one, other))
    return bool(one == other)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()


def _next_order(scene: Scene) -> list[Tensor]:
    """The targets of the next batches, which are looked at only."""
    position, numbers = scene.generator.get_state(), rng.capture()
    targets = [batch[1] for batch in itertools.islice(scene.loader, 5)]
    scene.generator.set_state(position)
    rng.restore(numbers)
    return targets


def _endless(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


@functools.cache
def _samples() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs and targets for training, and for validation."""
    halves = digits(0, augment=False)
    parts = [split.fetch(np.arange(len(split)), 0) for split in (halves.train, halves.valid)]
    train_part, valid_part = parts
    return train_part["inputs"], train_part["targets"], valid_part["inputs"], valid_part["targets"]


def _altered(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A batch, a little lighter or darker, with a little noise."""
    inputs = torch.stack([x for x, _ in samples]) * random.uniform(0.8, 1.2)
    noise = torch.from_numpy(np.random.normal(0.0, 0.05, inputs.shape)).float()
    return inputs + noise, torch.stack([y for _, y in samples])


def _unlearnable(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    inputs, targets = _altered(samples)
    return inputs, 10 * torch.randn(len(targets), NUM_CLASSES)
