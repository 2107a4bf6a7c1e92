"""The same training by two engines, and the comparison of what came of it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ava import registry
from ava.optimization import get_optimizer
from ava.optimization.optimizers.engines.native import build

SMALL = ((5, 3), (7,), (1,), (), (4, 3, 3, 3), (0, 4), (0,), (1, 13))
LARGE = ((37, 1009), (7919,), (16, 32, 3, 3))
STEPS = 15
MATRIX_METHODS = {"muon", "soap"}
"""What no kernel can print."""
PAIRS = [
    ("lion", ("factored", "cautious")),
    ("lion", ("int8", "orthograd")),
    ("adamw", ("int8", "cautious", "lookahead")),
    ("adamw", ("factored", "grams", "max_norm")),
    ("adamw", ("bf16", "noise", "unit_norm")),
    ("adamw", ("atan2", "cautious", "centralise", "standardise", "cautious_decay")),
    ("adafactor", ("int8", "coupled", "max_norm")),
    ("sgd", ("ademamix", "denoise", "non_negative")),
    ("prodigy", ("factored", "normalise")),
    ("lamb", ("int8", "orthograd", "grams")),
    ("schedule_free_adamw", ("bf16", "lookahead", "denoise")),
    ("adopt", ("factored", "ademamix")),
    ("mars", ("bf16", "centralise")),
]
"""Shared options that meet."""
CHANGES = {
    2: {"lr": 5e-3},
    4: {"weight_decay": 0.0},
    6: {"betas": (0.8, 0.95), "momentum": 0.5, "lr": torch.tensor(2e-3)},
    8: {"weight_decay": 0.2, "lr": 0.0},
    10: {"eps": 1e-6, "lr": 1e-3},
}
"""Step -> hyperparameters that are new from then on."""


def has_compiler() -> bool:
    try:
        build.find_compiler()
    except build.NoCompiler:
        return False
    return True


def names_of(spoken):
    return {name for name, _ in spoken}


def values(shapes, dtype):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@functools.cache
def noise(shape: tuple[int, ...], step: int) -> Tensor:
    seed = step * 1009 + sum(shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(p: Tensor, step: int) -> Tensor:
    """Of a quadratic, with noise that does not depend on the engine."""
    return (0.3 * p.detach() + noise(tuple(p.shape), step).to(p.dtype)).clone()


class Twins:
    """The same training by two engines, each on its own gradients' path but with the same noise."""

    def __init__(self, name, shapes, dtype=torch.float64, grouped=True, **options):
        self.sides = []
        for engine in ("auto", "reference"):
            params = [torch.nn.Parameter(value.clone()) for value in values(shapes, dtype)]
            groups = [{"params": params[::2]}, {"params": params[1::2], "lr": 2e-3}] if grouped else params
            optimizer = get_optimizer(name)(groups, **{"lr": 1e-3, **options}, engine=engine)
            self.sides.append((params, optimizer))

    @property
    def optimizers(self):
        return [optimizer for _, optimizer in self.sides]

    def step(self, step, scale=None, skip=False):
        for params, optimizer in self.sides:
            for p in params:
                p.grad = gradient(p, step) * (scale or 1)
                if skip and p.numel():
                    p.grad.view(-1)[0] = float("nan")
            if scale is not None:
                optimizer.grad_scale = torch.tensor(float(scale))
            optimizer.found_inf = torch.tensor(float(skip))
            if registry.optimizer[optimizer.name].tags.get("estimates") and step % 5 == 0:
                optimizer.take_estimate({p: noise(tuple(p.shape), step).to(p.dtype) ** 2 for p in params})
            kept = [p.grad.clone() for p in params]
            optimizer.step()
            for p, own in zip(params, kept, strict=True):
                assert torch.equal(p.grad, own) or p.grad.isnan().any()

    def train(self, steps=STEPS):
        for step in range(steps):
            self.step(step)
        return self

    def check(self, tolerance, flips=0.0):
        """Parameters and state agree; `flips` is the share of elements that may have been rounded to the other side."""
        if "prodigy" in self.optimizers[0].name:
            tolerance = max(tolerance, 1e-7)  # it sums p0 - p, of which the first steps leave few digits
        (ours, one), (theirs, other) = self.sides
        for p, q in zip(ours, theirs, strict=True):
            near(p, q, tolerance, flips, f"parameter of shape {tuple(p.shape)}")
            assert one.state[p].keys() == other.state[q].keys()
            for key, value in one.state[p].items():
                assert value.dtype is other.state[q][key].dtype
                near(value, other.state[q][key], tolerance, flips, key)
        for group, twin in zip(one.param_groups, other.param_groups, strict=True):
            for key, value in group.items():
                if isinstance(value, Tensor):
                    near(value, twin[key], tolerance, 0.0, key)


def near(value, expected, tolerance, flips, what):
    if value.dtype == torch.uint8 and what.endswith(".sign"):
        value, expected = ((bits[:, None] >> torch.arange(8)) & 1 for bits in (value, expected))
    size = expected.double().abs().max().item() if expected.numel() else 0.0
    close = torch.isclose(value.double(), expected.double(), rtol=tolerance, atol=tolerance * max(size, 1e-30))
    wrong = (~close).double().mean().item() if close.numel() else 0.0
    assert wrong <= flips, f"{what}: {wrong:.2%} differ by up to {(value.double() - expected.double()).abs().max():.2e}"


def options_of(name):
    """What lets every word of the sentence speak."""
    own = registry.optimizer[name].own
    return {"weight_decay": 0.1} if "weight_decay" in own else {}
