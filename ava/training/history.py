"""What advice is given from: the lines of the log so far, evaluations, incidents, and how the run was set up.

All of it are plain numbers that have left the device. A line of the log is a dict as in metrics.jsonl.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Row = dict[str, float]
LENGTH = 256
"""So many lines, looks at layers, evaluations and incidents are remembered: a long run takes no more memory."""
EARLY = 5
"""Lines that say how large gradients are at first."""


@dataclass(frozen=True)
class Setting:
    """How the run was set up, as far as advice depends on it.

    Attributes:
        total_steps: the last step.
        lr: the rate of `optimizer.lr`; None where the optimizer chooses it.
        workers: processes that load data.
        prefetch: windows that each of them fetches ahead.
        accumulate: micro-batches of a step.
        clip: the name of the gradient clipping.
        clip_norm: the norm to which it clips; None where it has no fixed one.
        chance_loss: the loss of a model that knows nothing; None where that has no meaning.
        memory_limit: bytes that there are in all; None where nobody knows.
        num_samples: of the training data.
        batch_size: samples of a step, over all ranks.
    """

    total_steps: int
    lr: float | None = None
    workers: int = 0
    prefetch: int = 4
    accumulate: int = 1
    clip: str = "none"
    clip_norm: float | None = None
    chance_loss: float | None = None
    memory_limit: float | None = None
    num_samples: int = 0
    batch_size: int = 1


@dataclass(frozen=True)
class Advice:
    """One thing that a person can do.

    Attributes:
        text: what is seen, since when, and what to try; a sentence without its full stop.
        numbers: what it was concluded from.
        subject: what it is about, such as a layer's name: advice on another subject is told although the rule has
            spoken before.
    """

    text: str
    numbers: dict[str, float] = field(default_factory=dict)
    subject: str = ""


class Look(NamedTuple):
    """The layers in one step.

    Attributes:
        step: which.
        norms: parameter -> norm of its gradient.
    """

    step: int
    norms: dict[str, float]


class History:
    """The past of a run, for the rules.

    Args:
        setting: how it was set up.

    Attributes:
        lines: the last lines of the log.
        layers: a look at the layers for each of these.
        evaluations: the last ones.
        incidents: the last ones, as in incidents.jsonl.
        num_lines: all lines so far, those that were taken back among them.
        num_incidents: all incidents so far.
        first_step: the step of the first line.
        first_loss: the first loss that is finite, of the first step as a rule; NaN while unknown.
        early_norm: the largest median of the gradient norm in the first lines; NaN while unknown.
        peak_lr: the highest rate so far, and the step of the first line that had it.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.lines: deque[Row] = deque(maxlen=LENGTH)
        self.layers: deque[Look] = deque(maxlen=LENGTH)
        self.evaluations: deque[Row] = deque(maxlen=LENGTH)
        self.incidents: deque[dict[str, Any]] = deque(maxlen=LENGTH)
        self.first_loss = self.early_norm = math.nan
        self.peak_lr, self.first_step = (0.0, 0), 0
        self.num_lines = self.num_incidents = 0

    def go_back(self, step: int) -> None:
        """The run went back to a step: what was told of later ones is undone."""
        while self.lines and self.lines[-1]["step"] > step:
            self.lines.pop()
        while self.layers and self.layers[-1].step > step:
            self.layers.pop()
        while self.evaluations and self.evaluations[-1]["step"] > step:
            self.evaluations.pop()

    def look(self, step: int, norms: dict[str, float]) -> None:
        """Take in the norms of the layers' gradients, before the line of the same step."""
        while self.layers and self.layers[-1].step >= step:
            self.layers.pop()
        self.layers.append(Look(step, norms))

    def note(self, incident: dict[str, Any]) -> None:
        """Take in an incident."""
        self.incidents.append(incident)
        self.num_incidents += 1

    def take(self, row: Row) -> None:
        """Take in a line of the log; what was told of later steps is forgotten, for the run went back."""
        self.go_back(int(row["step"]))
        if self.lines and self.lines[-1]["step"] == row["step"]:
            self.lines.pop()
        self.lines.append(row)
        self.num_lines += 1
        if self.num_lines == 1:
            self.first_step = int(row["step"])
        if not math.isfinite(self.first_loss):
            told = row.get("loss_first", math.nan)
            self.first_loss = told if math.isfinite(told) else row["loss"]
        if self.num_lines <= EARLY:
            self.early_norm = largest([self.early_norm, norm(row)])
        if row.get("lr", 0.0) > self.peak_lr[0]:
            self.peak_lr = (row["lr"], int(row["step"]))

    @property
    def step(self) -> int:
        """The step of the last line."""
        return int(self.lines[-1]["step"])

    def steps_of(self, count: int) -> int:
        """The number of steps that the last `count` lines tell of."""
        before = self.lines[-count - 1]["step"] if len(self.lines) > count else 0
        return self.step - int(before)

    @property
    def is_rising(self) -> bool:
        """Whether the rate still rises, as in a warmup."""
        rates = [row.get("lr", 0.0) for row in list(self.lines)[-2:]]
        return len(rates) == 2 and rates[1] > rates[0] * (1 + 1e-9)

    @property
    def has_decayed(self) -> bool:
        """Whether the rate is already far below its highest: the loss is meant to come to rest."""
        return self.lines[-1].get("lr", math.inf) < 0.3 * self.peak_lr[0]

    @property
    def is_converged(self) -> bool:
        """Whether hardly anything of the first loss is left."""
        return loss(self.lines[-1]) < 0.1 * self.first_loss

    @property
    def has_ratio(self) -> bool:
        """Whether it means something to divide by the first loss."""
        return 0 < self.first_loss < math.inf


def loss(row: Row) -> float:
    """The mean loss of the steps since the line before; that of the last one where one of them was not finite."""
    mean_loss = row.get("loss_mean", math.nan)
    return mean_loss if math.isfinite(mean_loss) else row["loss"]


def norm(row: Row) -> float:
    """The median norm of their gradients."""
    return row.get("grad_norm_median", row.get("grad_norm", math.nan))


def largest(values: Iterable[float]) -> float:
    """The largest of the numbers that are finite; NaN if none is."""
    return max((value for value in values if math.isfinite(value)), default=math.nan)


def mean(values: Sequence[float]) -> float:
    """The mean, as arithmetic has it: infinities of both signs are NaN, and raise nothing."""
    return sum(values) / len(values)


def rounded(value: float) -> str:
    """A rate with two digits, as one would type it."""
    return f"{value:.2g}"
