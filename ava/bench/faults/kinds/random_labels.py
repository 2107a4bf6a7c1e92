"""Labels that say nothing."""

import torch
from torch import Tensor

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection
from ava.bench.faults.kinds._draws import classes, drawn
from ava.data.source import IGNORED


@kind(duration=10, size=1.0)
def random_labels(injection: Injection) -> None:
    """A share `size` of all labels is drawn at random, each class as likely; targets of a language model likewise."""
    count = classes(injection)

    def relabelled(inputs: Tensor, targets: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = (torch.rand(targets.shape, generator=random) < injection.fault.size).to(targets.device)
        chosen &= targets != IGNORED
        return inputs, drawn(targets, count, random).where(chosen, targets)

    injection.on_batch(relabelled)
