"""Sentences as optimizers: the one class behind every name, a torch.optim.Optimizer in all respects.

    Lion = get_optimizer("lion")
    optimizer = Lion(model.parameters(), lr=1e-4, weight_decay=0.1)

`step()` asks the named optimizer for its sentence with each group's live values, gathers the parameters that have a
gradient, and hands them to the fastest engine that knows the sentence on their device. It never waits for an
accelerator: `grad_scale` and `found_inf`, set on the optimizer as torch.amp.GradScaler does, stay there, and where
`found_inf` is not 0 neither parameters nor state nor counters change.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.catalogue import class_name
from ava.optimization.optimizers.engines import foreach, fused, reference
from ava.optimization.optimizers.engines.batch import Batch, Engine
from ava.optimization.optimizers.loading import adopt_group, adopt_state, refuse_foreign
from ava.optimization.optimizers.sentence import Sentence, Words, compose, is_counted, slots_of
from ava.optimization.optimizers.storage.dense import Dense
from ava.optimization.options import check
from ava.registry import NonNegativeFloat, optimizer

Group: TypeAlias = dict[str, Any]


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
    builder: Callable[..., Words]
    _names: tuple[str, ...]
    grad_scale: Tensor | None
    found_inf: Tensor | None
    _step_supports_amp_scaling = True  # torch.amp.GradScaler leaves scale and skip to step()

    def __init__(self, params: Any, options: Group, engine: Literal["auto", "reference"] = "auto") -> None:
        self.engine: Literal["auto", "reference"] = check("engine", engine, Literal["auto", "reference"])
        self._codec = Dense()
        super().__init__(params, options)

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
        for group in self.param_groups:
            for batch in self._batches(group):
                self._engine(batch).run(batch)
        return loss

    def _check(self, options: Group) -> Group:
        """The options as the signature wants them; they must make a sentence."""
        parameters = optimizer[self.name].parameters
        checked = {
            key: _check_rate(value) if key == "lr" else check(key, value, parameters[key][0])
            for key, value in options.items()
            if key in parameters
        }
        self.builder(**checked)
        return checked

    def _sentence(self, group: Group) -> Sentence:
        return compose(self.builder(**{key: group[key] for key in self._names}))

    def _engine(self, batch: Batch) -> Engine:
        if self.engine == "reference":
            return reference
        return fused if fused.fits(batch) else foreach if foreach.fits(batch) else reference

    def _batches(self, group: Group) -> Iterator[Batch]:
        """The group's parameters that have a gradient, split by device and type."""
        pairs = [(p, g) for p in group["params"] if (g := p.grad) is not None]
        if not pairs:
            return
        sentence = self._sentence(group)
        kinds = {(p.device, p.dtype) for p, _ in pairs}
        for device, dtype in kinds:
            chosen = pairs
            if len(kinds) > 1:
                chosen = [(p, g) for p, g in pairs if p.device == device and p.dtype == dtype]
            parameters, gradients = [p for p, _ in chosen], [g for _, g in chosen]
            if any(gradient.layout is not torch.strided for gradient in gradients):
                raise InputError(f"{self.name} needs dense gradients; build the embedding with sparse=False.")
            yield Batch(
                sentence, group, parameters, gradients, self._states(sentence, parameters), self._codec,
                *self._amp_scalars(device),
            )  # fmt: skip

    def _states(self, sentence: Sentence, parameters: list[Tensor]) -> list[dict[str, Tensor]]:
        """Each parameter's state; what the sentence needs and is not there yet starts at zero."""
        states = [self.state[parameter] for parameter in parameters]
        keys = _keys(sentence)
        for parameter, state in zip(parameters, states, strict=True):
            if not keys <= state.keys():
                self._begin(sentence, parameter, state)
        return states

    def _begin(self, sentence: Sentence, parameter: Tensor, state: dict[str, Tensor]) -> None:
        slots = slots_of(sentence)
        if is_counted(sentence) and "step" not in state:
            # Moments from a file without a counter (torch's SGD has none) are past their first step.
            begun = any(slot.name in state for slot in slots)
            state["step"] = torch.full((), float(begun), dtype=torch.float32, device=parameter.device)
        for slot in slots:
            if slot.name not in state:
                state.update(self._codec.allocate(slot, parameter))

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
        return {**super().__getstate__(), "engine": self.engine, "_codec": self._codec}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # torch puts it in
        for group in self.param_groups:
            adopt_group(group, self.defaults)
            for parameter in group["params"]:
                if parameter in self.state:
                    adopt_state(parameter, self.state[parameter])


@functools.cache
def _keys(sentence: Sentence) -> frozenset[str]:
    """What a parameter's state holds at least."""
    names = [slot.name for slot in slots_of(sentence)]
    return frozenset([*names, "step"] if is_counted(sentence) else names)


def _check_rate(lr: Any) -> Any:
    """A learning rate: from Python also 0, where groups are frozen, and a tensor, which a compiled step can follow."""
    number = lr
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise InputError("must be one number.", key="lr", value=tuple(lr.shape))
        number = lr.item()
    number = check("lr", number, NonNegativeFloat)
    return lr if isinstance(lr, Tensor) else number


@functools.cache
def build_class(name: str, builder: Callable[..., Words]) -> type[ComposedOptimizer]:
    """The class of a named optimizer: its signature is the builder's, its pickles are found by its name.

    Args:
        name: the registered name.
        builder: the function under `@optimizer`.

    Returns:
        A subclass of ComposedOptimizer, the same one for the same arguments.
    """
    entry = optimizer[name]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [
            inspect.Parameter("self", kind),
            inspect.Parameter("params", kind),
            *(inspect.Parameter(k, kind, annotation=a, default=d) for k, (a, d) in entry.parameters.items()),
            inspect.Parameter("engine", inspect.Parameter.KEYWORD_ONLY, default="auto"),
        ]
    )

    def __init__(self: ComposedOptimizer, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        options = {key: bound.arguments[key] for key in entry.parameters}
        ComposedOptimizer.__init__(self, bound.arguments["params"], options, bound.arguments["engine"])

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    title = class_name(entry)
    members = {
        "__init__": __init__, "__doc__": entry.doc, "__module__": "ava.optimization", "__qualname__": title,
        "name": name, "builder": staticmethod(builder), "_names": tuple(entry.parameters),
    }  # fmt: skip
    return type(title, (ComposedOptimizer,), members)
