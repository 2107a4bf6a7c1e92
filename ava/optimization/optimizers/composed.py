"""Sentences as optimizers: the one class behind every name, a torch.optim.Optimizer in all respects.

    Lion = get_optimizer("lion")
    optimizer = Lion(model.parameters(), lr=1e-4, weight_decay=0.1, cautious=True, state="factored")

`step()` asks the named optimizer for its sentence with each group's live values, gathers the parameters that have a
gradient, and hands them to the fastest engine that knows the sentence on their device. It never waits for an
accelerator: `grad_scale` and `found_inf`, set on the optimizer as torch.amp.GradScaler does, stay there, and where
`found_inf` is not 0 neither parameters nor state nor counters change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.batches import OF_THE_WHOLE, Grammar, batches
from ava.optimization.optimizers.engines.batch import Totals
from ava.optimization.optimizers.engines.conduct import conduct
from ava.optimization.optimizers.loading import adopt_group, adopt_state, refuse_foreign
from ava.optimization.optimizers.sentence import ByShape, Words
from ava.optimization.options import check
from ava.registry import NonNegativeFloat, optimizer

Group: TypeAlias = dict[str, Any]
Choice: TypeAlias = Literal["auto", "reference"]


class ComposedOptimizer(torch.optim.Optimizer):
    """A torch.optim.Optimizer made from a sentence; `get_optimizer` returns its subclasses, one for each name.

    Args:
        params: tensors, (name, tensor) pairs, or groups of either with options of their own.
        options: every option of the named optimizer, for the groups that do not say otherwise.
        engine: "auto" takes the fastest that knows the sentence, "reference" plain torch operations.

    Raises:
        InputError: an option or a parameter cannot be used.
    """

    name: str
    builder: Callable[..., Words | ByShape]
    grad_scale: Tensor | None
    found_inf: Tensor | None
    _step_supports_amp_scaling = True  # torch.amp.GradScaler leaves scale and skip to step()

    def __init__(self, params: Any, options: Group, engine: Choice = "auto") -> None:
        self.engine: Choice = check("engine", engine, Choice)
        self._numbers: dict[Tensor, int] = {}
        self.whole = {key: check(key, options[key], optimizer[self.name].parameters[key][0]) for key in OF_THE_WHOLE}
        super().__init__(params, {key: value for key, value in options.items() if key not in OF_THE_WHOLE})

    @property
    def _grammar(self) -> Grammar:
        grammar: Grammar = type(self).__dict__["grammar"]
        return grammar

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters with options of their own; what they leave out is as the optimizer was built.

        Raises:
            InputError: an option or a parameter cannot be used.
        """
        options = {key: param_group.get(key, value) for key, value in self.defaults.items()}
        checked = self._check(options)
        super().add_param_group({**param_group, **checked})
        for parameter in self.param_groups[-1]["params"]:
            if not parameter.is_floating_point():
                self.param_groups.pop()
                raise InputError(f"{self.name} updates real floating-point parameters, not {parameter.dtype}.")
        for parameter in self.param_groups[-1]["params"]:
            self._numbers[parameter] = len(self._numbers)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the gradients anew and returns the loss.

        Returns:
            The closure's loss, if there is a closure.

        Raises:
            InputError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update()
        return loss

    def _update(self, only: Tensor | None = None) -> None:
        """Update all parameters, or one."""
        batched = [
            batch
            for group in self.param_groups
            for batch in batches(self._grammar, group, self.state, self._numbers, self._amp_scalars, only)
        ]
        common = conduct(batched, self.engine)
        if common:
            self._share(common)

    def _share(self, common: Totals) -> None:
        """Write what all parameters share into every group that has it, unless the step is skipped."""
        for group in self.param_groups:
            for name, value in common.items():
                if isinstance(group.get(name), Tensor):
                    old, (_, skip) = group[name], self._amp_scalars(group[name].device)
                    new = value.to(old.device, old.dtype)
                    group[name] = new if skip is None else old.where(skip, new)

    def _check(self, options: Group) -> Group:
        """The options as the signature wants them; they must make a sentence."""
        parameters = optimizer[self.name].parameters
        checked = {
            key: _check_rate(value, parameters[key][0]) if key == "lr" else check(key, value, parameters[key][0])
            for key, value in options.items()
            if key in parameters
        }
        self._grammar.sentences(checked)
        return checked

    def _amp_scalars(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """The gradient scale and whether to skip, on the device, as torch.amp.GradScaler leaves them."""
        scale, found = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        return (
            None if scale is None else scale.reshape(()).to(device, non_blocking=True),
            None if found is None else (found.reshape(()) != 0).to(device, non_blocking=True),
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict of this class, or of the torch.optim class of the same name.

        Raises:
            InputError: the file's options or shapes are not this optimizer's.
        """
        refuse_foreign(state_dict, self.param_groups)
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "engine": self.engine, "_numbers": self._numbers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # torch puts it in
        for group in self.param_groups:
            adopt_group(group, self.defaults)
            for parameter in group["params"]:
                if parameter in self.state:
                    adopt_state(parameter, self.state[parameter])


def _check_rate(lr: Any, annotation: Any) -> Any:
    """A learning rate: from Python also 0, where groups are frozen, and a tensor, which a compiled step can follow."""
    if lr is None:
        return check("lr", lr, annotation)
    number = lr
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise InputError("must be one number.", key="lr", value=tuple(lr.shape))
        number = lr.item()
    number = check("lr", number, NonNegativeFloat)
    return lr if isinstance(lr, Tensor) else number
