"""What a step did to each layer: how strong its gradient was, and how far its weights moved for their size.

    layers = LayerWatch(model.named_parameters(), measure(model.parameters()))   # after backward
    optimizer.step()
    statistics = layers.after_step()                                             # still on the device
    statistics.read()["head.weight"]["update_ratio"]                             # waits for the device, once

The update-to-weight ratio tells what a learning rate means to a layer: about 1e-3 a step is usual for matrices under
Adam, 1e-2 makes a layer forget, 1e-6 leaves it as it was drawn. The weights from before the step are copied, so this
is for every hundredth step rather than for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.health import shards
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.optimizers.engines.batch import local, wide_dtype


@dataclass(frozen=True)
class LayerStatistics:
    """What a step did to N parameters, not yet read.

    Attributes:
        names: theirs.
        values: (N, 4): gradient norm, weight norm before the step, update norm, share of zeros in the gradient.
    """

    names: list[str]
    values: Tensor

    def read(self) -> dict[str, dict[str, float | None]]:
        """By parameter: `grad_norm`, `weight_norm`, `update_norm`, `update_ratio`, `zero_grads`; waits for the device.

        Returns:
            `update_ratio` is update norm / weight norm, None where all weights were 0; `zero_grads` lies in 0 to 1.
        """
        return {name: _row(*values) for name, values in zip(self.names, self.values.tolist(), strict=True)}


class LayerWatch:
    """Copies weights before a step, to say after it how far they moved.

    Args:
        named: (name, parameter) of the model.
        measured: this step's gradients. Parameters without a gradient are left out.

    Raises:
        InputError: the gradients are used up, and the weights moved.
    """

    @torch.no_grad()
    def __init__(self, named: Iterable[tuple[str, Tensor]], measured: Measurement) -> None:
        if len(measured.gradients) < len(measured.parameters):
            raise InputError(
                "layers are compared before and after a step, which optimizer.fused_backward takes with the gradients.",
                hint="Set health.detail_every=0 or optimizer.fused_backward=false.",
            )  # fmt: skip
        names = {id(parameter): name for name, parameter in named}
        self._parameters, self._norms = measured.parameters, measured.norms
        self._names = [names[id(parameter)] for parameter in self._parameters]
        self._before = [local(parameter).detach().clone() for parameter in self._parameters]
        # Counted now: a fused optimizer may overwrite gradients.
        self._zeros = [(local(gradient) == 0).sum() for gradient in measured.gradients]

    @torch.no_grad()
    def after_step(self) -> LayerStatistics:
        """Compare with the weights of now; call it right after the step, on every rank."""
        groups: dict[tuple[torch.device, shards.Ranks], list[int]] = {}
        for index, parameter in enumerate(self._parameters):
            groups.setdefault((parameter.device, shards.ranks(parameter)), []).append(index)
        values = self._norms.new_zeros(len(self._parameters), 4, dtype=wide_dtype(self._norms.device))
        values[:, 0] = self._norms
        for (_, over), places in groups.items():
            sums = shards.total(self._sums(places), over)
            values[places, 1:] = torch.cat([sums[:, :2].sqrt(), sums[:, 2:]], dim=1).to(values)
        self._before = []
        return LayerStatistics(self._names, values)

    def _sums(self, places: list[int]) -> Tensor:
        """(n, 3) of this rank's part: squares of weights, squares of updates, share of zero gradients."""
        before = [self._before[place] for place in places]
        now = [local(self._parameters[place]).detach() for place in places]
        wide = wide_dtype(before[0].device)
        weights = torch.stack(torch._foreach_norm(before, 2, dtype=wide))
        torch._foreach_sub_(before, now)
        updates = torch.stack(torch._foreach_norm(before, 2, dtype=wide))
        sizes = weights.new_tensor([max(self._parameters[place].numel(), 1) for place in places])
        zeros = torch.stack([self._zeros[place] for place in places]).to(weights)
        return torch.stack([weights.square(), updates.square(), zeros / sizes], dim=1)


def _row(grad_norm: float, weight_norm: float, update_norm: float, zeros: float) -> dict[str, float | None]:
    ratio = update_norm / weight_norm if weight_norm else None
    return {
        "grad_norm": grad_norm, "weight_norm": weight_norm, "update_norm": update_norm, "update_ratio": ratio,
        "zero_grads": zeros,
    }  # fmt: skip
