"""Sentences as optimizers: the one class behind every name, a torch.optim.Optimizer in all respects.

    Lion = get_optimizer("lion")
    optimizer = Lion(model.parameters(), lr=1e-4, weight_decay=0.1, cautious=True, state="factored")

`step()` asks the named optimizer for its sentence with each group's live values, gathers the parameters that have a
gradient, and hands them to the fastest engine that knows it on their device. It never waits for an accelerator:
`grad_scale` and `found_inf`, set as torch.amp.GradScaler does, stay there; where `found_inf` is not 0 nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers import piloted
from ava.optimization.optimizers.batches import OF_THE_WHOLE, Grammar, Pairs, batches
from ava.optimization.optimizers.engines.batch import Batch, Totals
from ava.optimization.optimizers.engines.conduct import conduct
from ava.optimization.optimizers.idle import refuse_idle
from ava.optimization.optimizers.loading import adopt_group, adopt_state, refuse_foreign, restore
from ava.optimization.optimizers.outside_graphs import outside_graphs
from ava.optimization.optimizers.parameter_groups import expand
from ava.optimization.optimizers.rates import check_rate
from ava.optimization.optimizers.roster import Roster
from ava.optimization.optimizers.sentence import ByShape, Sentence, Slot, Words, own_slots, variants
from ava.optimization.optimizers.watched import States
from ava.optimization.optimizers.wrappers import averaging, estimates, sam
from ava.optimization.optimizers.wrappers.fused_backward import FusedBackward
from ava.optimization.options import check
from ava.registry import optimizer

if TYPE_CHECKING:
    from ava.optimization.stability.pilot import Pilot

Group: TypeAlias = dict[str, Any]
Choice: TypeAlias = Literal["auto", "reference"]


class ComposedOptimizer(torch.optim.Optimizer):
    """A torch.optim.Optimizer made from a sentence; `get_optimizer` returns subclasses, one for each name.

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
        self._roster = Roster()
        self.whole = {key: check(key, options[key], optimizer[self.name].parameters[key][0]) for key in OF_THE_WHOLE}
        self.fused: FusedBackward | None = None
        self.judged: Tensor | None = None
        self.pilot: Pilot | None = None
        self.training_weights: averaging.Weights | None = None
        defaults = {key: value for key, value in options.items() if key not in OF_THE_WHOLE}
        annotations = {key: annotation for key, (annotation, _) in optimizer[self.name].parameters.items()}
        groups = expand(params, defaults, self.whole["groups"], self.whole["layer_lr_decay"], annotations)
        super().__init__(groups, defaults)
        self.state: States = States({})
        self.unguided: int | None = 0 if self.speaks_of(estimates.VARIANT) else None
        self.pilot = piloted.pilot_of(self)
        self.piloted = None if self.pilot is None else self.pilot.memory
        refuse_idle(self)
        self._attach()

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
        if self.pilot is not None:
            self.pilot.check([checked])
        super().add_param_group({**piloted.live(self.name), **param_group, **checked})
        for parameter in self.param_groups[-1]["params"]:
            if not parameter.is_floating_point():
                self.param_groups.pop()
                raise InputError(f"{self.name} updates real floating-point parameters, not {parameter.dtype}.")
        for parameter in self.param_groups[-1]["params"]:
            self._numbers[parameter] = len(self._numbers)
        self._inherit(self.param_groups[-1])
        if self.fused is not None:
            self.fused.attach()

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @outside_graphs
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the gradients anew and returns the loss.

        Returns:
            The closure's loss, if there is a closure.

        Raises:
            InputError: a gradient is sparse; `sam_rho` without a closure; `eval()` without `train()` after it.
        """
        averaging.refuse_resting(self)
        loss = None
        if self.whole["sam_rho"] is not None and (closure is not None or self.judged is None):
            loss = sam.sharpen(self, closure)
        elif closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.fused is not None:
            self.fused.step()
        judged, self.judged = self.judged, None
        if self.pilot is not None and loss is not None:
            self.pilot.observe(loss)
        with self.judging(judged), self.judging(piloted.prepared(self)):
            self.update([(group, None) for group in self.param_groups])
        if self.unguided is not None:
            estimates.remind(self)
        return loss

    def perturbed(self) -> AbstractContextManager[Tensor]:
        """Within it the parameters stand where `sam_rho` puts them: take the gradients anew (`wrappers/sam.py`)."""
        return sam.perturbed(self)

    def averaged(self) -> AbstractContextManager[None]:
        """Within it the parameters hold the weights to evaluate; for most optimizers these are their own."""
        return averaging.averaged(self)

    def eval(self) -> None:
        """Put the weights to evaluate into the parameters; `train()` has to follow before the next step."""
        if self.training_weights is None and self.speaks_of(averaging.VARIANT):
            self.training_weights = averaging.swap(self)

    def train(self) -> None:
        """Put the weights that train back, bit for bit."""
        if self.training_weights is not None:
            averaging.put_back(self.training_weights)
            self.training_weights = None

    def take_estimate(self, estimates_: Mapping[Tensor, Tensor]) -> None:
        """Average estimates of the Hessian's diagonal into the state (`wrappers/estimates.py`)."""
        estimates.take(self, estimates_)

    def update(
        self, work: Sequence[tuple[Group, Pairs | None]], variant: str | None = None,
        state: MutableMapping[Tensor, dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """Update parameters; what the wrappers are made of.

        Args:
            work: param groups, each with which of its parameters to update by which gradients; None takes every one
                that has a gradient.
            variant: speak only the stages' variants of this name.
            state: read and write this in place of the optimizer's own.
        """
        held, rest = self.state if state is None else state, (self._numbers, self._amp_scalars)
        batched: list[Batch] = []
        for group, pairs in work:
            if pairs is None and variant is None and state is None:
                batched += self._roster.batches(self._grammar, group, self.state, *rest)
            else:
                batched += batches(self._grammar, group, held, *rest, pairs, variant)
        common = conduct(batched, self.engine)
        if common:
            self._share(common)

    def sentences(self, group: Group) -> tuple[Sentence, Sentence]:
        """What a group's matrices follow, and what its other parameters do."""
        return self._grammar.sentences(group)

    def speaks_of(self, variant: str) -> bool:
        """Whether a stage has a variant of that name."""
        return any(variants(sentence, variant) for group in self.param_groups for sentence in self.sentences(group))

    @contextmanager
    def judging(self, measure: Tensor | None) -> Iterator[None]:
        """Within it nothing changes if the measure is not finite, nor if `found_inf` says so."""
        said = getattr(self, "found_inf", None)
        if measure is not None:
            wrong = (~torch.isfinite(measure)).float()
            self.found_inf = wrong if said is None else wrong.maximum(said.reshape(()).to(wrong))
        try:
            yield
        finally:
            if measure is not None:
                self.found_inf = said

    def _share(self, common: Totals) -> None:
        """Write what all parameters share into every group that has it, unless the step is skipped."""
        for group in self.param_groups:
            for name, value in common.items():
                if isinstance(group.get(name), Tensor):
                    old, (_, skip) = group[name], self._amp_scalars(group[name].device)
                    new = value.to(old.device, old.dtype)
                    group[name] = new if skip is None else old.where(skip, new)
        for group in self.param_groups:
            self._inherit(group)

    def _inherit(self, group: Group) -> None:
        """Give a group that came late, or had no gradient until now, what the parameters of the others share."""
        for other in self.param_groups:
            for name, value in other.items():
                if isinstance(value, Tensor) and name not in self.defaults:
                    group.setdefault(name, value.clone())

    def _check(self, options: Group) -> Group:
        """The options as the signature wants them; they must make a sentence."""
        parameters = optimizer[self.name].parameters
        checked = {
            key: check_rate(value, parameters[key][0]) if key == "lr" else check(key, value, parameters[key][0])
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

    def grad_scale_on(self, device: torch.device) -> Tensor | None:
        """What gradients are multiplied with, on the device; None is 1."""
        return self._amp_scalars(device)[0]

    def _attach(self) -> None:
        """Update parameters in the backward pass, if that was asked for."""
        if not self.whole["fused_backward"]:
            return
        if self.whole["sam_rho"] is not None:
            raise InputError(
                "uses each gradient at once, but sam_rho takes them twice.", key="fused_backward", value=True,
                hint="Leave one of them out.",
            )  # fmt: skip
        self.fused = FusedBackward(self)

    def state_dict(self) -> dict[str, Any]:
        """As of torch.optim; after `eval()` with the weights that train."""
        packed = piloted.pack(self, averaging.pack(self, super().state_dict()))
        return {**packed, "state": {key: dict(value) for key, value in packed["state"].items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict of this class, or of the torch.optim class of the same name.

        Raises:
            InputError: the file's options or shapes are not this optimizer's.
        """
        refuse_foreign(state_dict, self.param_groups, self._slots)
        piloted.refuse_other(self, state_dict)
        super().load_state_dict(state_dict)
        restore(state_dict, self.param_groups, self.state, self._slots)
        self.training_weights = averaging.unpack(self)
        piloted.unpack(self)

    def _slots(self, group: Group, parameter: Tensor) -> tuple[Slot, ...]:
        """The state that a parameter of a group keeps."""
        return own_slots(self.sentences(group)[parameter.ndim < 2])

    def __getstate__(self) -> dict[str, Any]:
        kept = ("engine", "_numbers", "whole", "training_weights", "unguided", "pilot", "piloted")
        return {**super().__getstate__(), **{key: getattr(self, key) for key in kept}, "judged": None, "fused": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._roster, self.state = Roster(), States(self.state)
        self.defaults.pop("differentiable", None)  # torch puts it in
        for group in self.param_groups:
            adopt_group(group, self.defaults)
            for parameter in group["params"]:
                if parameter in self.state:
                    adopt_state(parameter, self.state[parameter])
        if "whole" in state:
            self._attach()  # a copy watches parameters of its own
