"""Trainings of `task=digits_multitask`: what each objective reached, and how often two gradients conflicted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ava.config.parts import build_run
from ava.config.resume import prepare
from ava.data.loader import Batch
from ava.distributed.world import join
from ava.training.evaluation import evaluate
from ava.training.state import Run
from ava.training.step import training_step

METRICS = {
    "left": "eval/left_accuracy", "right": "eval/right_accuracy", "turn": "eval/turn_accuracy",
    "reconstruction": "eval/reconstruction_error",
}  # fmt: skip
"""Objective -> the metric that says how well it was learned."""
SIGNS = {"left": 1, "right": 1, "turn": 1, "reconstruction": -1}
"""Objective -> whether more of its metric is better, or less."""
PROBLEM = ("task=digits_multitask", "model=mlp", "model.width=32", "trainer.batch_size=64", "trainer.device=cpu")
"""11,401 parameters, of which 5,824 are shared: too few for all four objectives."""
UNHEEDED = 1e-6
"""The weight of an objective that is not to shape the trunk."""
LOOK_EVERY = 10
"""Steps between two looks at the gradients."""


@dataclass(frozen=True)
class Entrant:
    """A way to train, and the settings of which the best is to be found.

    Attributes:
        label: what the table calls it.
        candidates: overrides; one of these tuples is chosen on seeds of their own.
        apart: whether each objective gets a model of its own, for which the others weigh nothing.
    """

    label: str
    candidates: tuple[tuple[str, ...], ...]
    apart: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a training reached.

    Attributes:
        scores: objective -> its metric on validation data; nan where training failed.
        conflicts: the share of pairs of objectives whose gradients on the shared parameters had a negative cosine,
            over the steps that were looked at; nan where there is no pair.
    """

    scores: dict[str, float]
    conflicts: float


def train(entrant: Entrant, candidate: Sequence[str], seed: int, steps: int) -> Outcome:
    """Train as `ava-train` does, but without files.

    Args:
        entrant: says whether objectives share a model.
        candidate: overrides.
        seed: of the start, the data's order and all noise.
        steps: the length of the training.

    Raises:
        InputError: an override cannot be.
    """
    if not entrant.apart:
        return _train(candidate, seed, steps)
    alone = {name: _train([*candidate, *_only(name)], seed, steps) for name in METRICS}
    return Outcome({name: outcome.scores[name] for name, outcome in alone.items()}, math.nan)


def _only(name: str) -> list[str]:
    return [f"task.{other}_weight={UNHEEDED}" for other in METRICS if other != name]


def _train(words: Sequence[str], seed: int, steps: int) -> Outcome:
    config, _ = prepare([*PROBLEM, f"seed={seed}", f"trainer.max_steps={steps}", *words])
    with join(config.trainer.device) as world:
        run, plan = build_run(config, world)
        run.network.train()
        seen: list[Tensor] = []
        for window in run.loader.windows(run.position):
            if run.step % LOOK_EVERY == 0:
                seen.append(cosines(run, window.batches[0]))
            training_step(run, window)
            if run.step == plan.total_steps:
                break
        metrics = evaluate(run)
    return Outcome(
        {name: metrics[metric] for name, metric in METRICS.items()}, float((torch.cat(seen) < 0).float().mean())
    )


def cosines(run: Run, batch: Batch) -> Tensor:
    """The cosine of each pair of objectives' gradients on the parameters that all of them reach: (T (T - 1) / 2,)."""
    losses = list(run.task.losses(run.model, batch).values())
    rows = [torch.autograd.grad(loss, run.parameters, retain_graph=True, allow_unused=True) for loss in losses]
    shared = [column for column in zip(*rows, strict=True) if all(gradient is not None for gradient in column)]
    flat = [torch.cat([column[k].flatten() for column in shared]) for k in range(len(losses))]
    pairs = itertools.combinations(flat, 2)
    return torch.stack([torch.nn.functional.cosine_similarity(one, other, dim=0) for one, other in pairs])
