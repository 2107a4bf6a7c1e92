"""Surgery only where objectives are in conflict, for any training loop.

    surgeon = AdaptiveGradientSurgeon(method="pcgrad")
    surgeon.process_losses(model, [loss_a, loss_b, loss_c]).backward()

While there is no conflict, a step is one backward pass of the sum, and a look at each objective's gradient of the last
shared layer. With a conflict, the method gets the Gram matrix of all shared parameters as the last layer's foretells it
(`gate.py`), and its weights multiply what the objectives send into the shared part: still one pass. Every
`calibrate_every` steps of a conflict the true matrix is worked out, used, and compared with the foretold one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.gradients.surgery.alignment import align
from ava.optimization.gradients.surgery.binding import bind_within, needs
from ava.optimization.gradients.surgery.comparison import Comparison
from ava.optimization.gradients.surgery.entrance import last_parameters
from ava.optimization.gradients.surgery.every_gradient import each_apart
from ava.optimization.gradients.surgery.gate import ConflictGate
from ava.optimization.gradients.surgery.gram import combine, gram_matrix
from ava.optimization.gradients.surgery.graph import SHARED, SharedGraph, divide
from ava.optimization.gradients.surgery.interception import RowsOf, intercept, plain_sum
from ava.optimization.gradients.surgery.objectives import Objectives, Remembering, ask, restore
from ava.optimization.gradients.surgery.overlap import telling
from ava.optimization.gradients.surgery.rows import Rows
from ava.optimization.gradients.surgery.wrapped import ranks_of
from ava.optimization.options import check
from ava.registry import Decay, NonNegativeFloat, NonNegativeInt, PositiveInt

_COUNTS = (
    "num_steps", "num_looks", "num_pairs", "num_conflicts", "surgery_applied", "num_exact", "num_nonfinite"
)  # fmt: skip
_STALE = 5
"""A calibration is forgotten when it is so many times `calibrate_every` steps old."""


class AdaptiveGradientSurgeon:
    """Detects conflicts between the gradients of several losses and resolves them.

    Args:
        conflict_threshold: two gradients with a cosine below it are in conflict, -1 to 1.
        method: one of `list_surgery()` that works on gradients.
        auto_detect: whether surgery waits for a conflict. If not, the method is applied in every step, exactly, to the
            gradients of all shared parameters, at the cost of one backward pass an objective.
        margin: how far above the threshold the smoothed cosine has to rise for a conflict to be over.
        smoothing: weight of the past in the smoothed cosines.
        num_layers: how many of the last shared layers are looked at, of those in which objectives meet; found at the
            first look.
        look_every: steps from one look to the next while there is no conflict.
        calibrate_every: steps from one exact step to the next while there is a conflict.
        seed: of what is random in a method.
        options: the method's own.

    Raises:
        InputError: no method has the name, it weighs losses whatever their gradients, or a value is not allowed.
    """

    def __init__(
        self, conflict_threshold: float = 0.0, method: str = "pcgrad", auto_detect: bool = True, *,
        margin: float = 0.02, smoothing: float = 0.8, num_layers: int = 1, look_every: int = 1,
        calibrate_every: int = 40, seed: int = 0, **options: Any,
    ) -> None:  # fmt: skip
        threshold = check("conflict_threshold", conflict_threshold, float)
        if not -1 <= threshold <= 1:
            raise InputError("must be a cosine, from -1 to 1.", key="conflict_threshold", value=threshold)
        self._needs, self._method = needs(method), bind_within(AdaptiveGradientSurgeon, method, options)
        if self._needs == "losses":
            problem = "weighs losses by their values and resolves no conflict of gradients."
            raise InputError(problem, key="method", value=method, hint="Use GradientSurgeon, or another method.")
        self.auto_detect = check("auto_detect", auto_detect, bool)
        self.num_layers = check("num_layers", num_layers, PositiveInt)
        self.look_every = check("look_every", look_every, PositiveInt)
        self.calibrate_every = check("calibrate_every", calibrate_every, PositiveInt)
        self.seed = check("seed", seed, NonNegativeInt)
        self.gate = ConflictGate(
            threshold, check("margin", margin, NonNegativeFloat), check("smoothing", smoothing, Decay)
        )
        self._calibrated: int | None = None
        self._near: list[int] = []
        self._counts = dict.fromkeys(_COUNTS, 0)

    def process_losses(
        self, model: nn.Module | Iterable[Tensor], losses: Sequence[Tensor] | Mapping[str, Tensor]
    ) -> Tensor:
        """Make one loss of several.

        Args:
            model: the module that made them, or the parameters whose gradients are compared. A module in
                DistributedDataParallel has all ranks decide alike, on averaged gradients.
            losses: 0-dim, of one forward pass.

        Returns:
            0-dim, the sum of the losses. Its `backward()` adds the reconciled gradient to `.grad`: of shared parameters
            what the method says, of heads their own, and what no loss reaches stays as it is. It may be scaled and
            added to other terms, and is reconciled when backward runs: call it before the next `process_losses`.

        Raises:
            InputError: losses or model are no such things, no loss reaches the model, or its parameters are sharded.
        """
        named = _named(losses)
        parameters, ranks = ranks_of(model)
        graph = divide(named)
        graph.refuse_joint()
        among = {id(parameter) for parameter in parameters}
        shared = _compared(graph, among)
        now = Comparison(self._counts["num_steps"], [loss.detach() for loss in named.values()], shared, ranks)
        self._counts["num_steps"] += 1
        if not shared or (self.auto_detect and not self.gate.is_open and now.step % self.look_every):
            return plain_sum(list(named.values()))
        if not self.auto_detect or (self._needs == "rows" and self.gate.is_open):
            return each_apart(
                named, graph, parameters, lambda rows, leaves, seed: self._reconcile(now, rows, leaves, seed)
            )
        near = self._known_near(parameters, shared, len(named))
        layers = near or last_parameters(graph, among, len(shared))

        def decide(rows_of: RowsOf, seed: Tensor) -> list[float] | None:
            return self._decide(now, near or self._find_near(now, layers, parameters, rows_of), rows_of, seed)

        return intercept(named, graph, decide)

    def get_stats(self) -> dict[str, Any]:
        """What happened so far, in plain numbers.

        Returns:
            `num_steps`, calls of `process_losses`; `num_looks`, backward passes in which gradients were compared;
            `num_pairs` and `num_conflicts`, the pairs compared in them and those found in conflict; `conflict_rate`,
            their quotient; `surgery_applied`, backward passes whose gradient differs from the sum's; `num_exact`, those
            in which every objective's whole gradient was taken; `num_nonfinite`, those with a gradient that was not
            finite, left as they were; `in_conflict`, whether there is a conflict now; `cosines`, (T, T) lists, as seen
            last, and `min_cosine`, the smallest of them.
        """
        counts, seen = self._counts, self.gate.cosines
        return {
            **counts,
            "conflict_rate": counts["num_conflicts"] / max(counts["num_pairs"], 1),
            "in_conflict": self.gate.is_open,
            "cosines": [] if seen is None else seen.tolist(),
            "min_cosine": 1.0 if seen is None else float(seen.min()),
        }

    def state_dict(self) -> dict[str, Any]:
        """The counts, the gate's memory, which parameters it looks at, by place, and what the method remembers."""
        remembered = self._method.state_dict() if isinstance(self._method, Remembering) else None
        state = {"counts": dict(self._counts), "calibrated": self._calibrated, "near": list(self._near)}
        return {**state, "gate": self.gate.state_dict(), "method": remembered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: another method remembered it.
        """
        restore(self._method, state["method"])
        self._counts, self._calibrated = dict(state["counts"]), state["calibrated"]
        self._near = list(state["near"])
        self.gate.load_state_dict(state["gate"])

    def _known_near(self, parameters: Sequence[Tensor], shared: Sequence[Tensor], num_objectives: int) -> list[Tensor]:
        """The layers to look at; empty where they are still to be found for so many objectives, or not shared now."""
        seen, among = self.gate.cosines, {id(parameter) for parameter in shared}
        if seen is None or len(seen) != num_objectives or max(self._near, default=0) >= len(parameters):
            return []
        near = [parameters[place] for place in self._near]
        return near if all(id(parameter) in among for parameter in near) else []

    def _find_near(
        self, now: Comparison, layers: list[Tensor], parameters: Sequence[Tensor], rows_of: RowsOf
    ) -> list[Tensor]:
        """The layers to look at, and from now on."""
        found = telling(layers, self.num_layers, lambda some: now.average(rows_of(some), some))
        if found is None:
            return layers[: self.num_layers]
        places = {id(parameter): place for place, parameter in enumerate(parameters)}
        self._near = [places[id(layers[index])] for index in found]
        return [layers[index] for index in found]

    def _decide(self, now: Comparison, near: list[Tensor], rows_of: RowsOf, seed: Tensor) -> list[float] | None:
        """The weights of one pass, from the last layers' gradients; exact ones where a calibration is due."""
        gram = now.gram(rows_of(near), near, seed)
        age = 0 if self._calibrated is None else now.step - self._calibrated
        if age > _STALE * self.calibrate_every:
            self.gate.forget()
        if not self._look(gram) or self._needs == "rows":
            return None
        if self._calibrated is None or age >= self.calibrate_every:
            full = now.gram(rows_of(now.shared), now.shared, seed)
            self._counts["num_exact"] += 1
            if bool(full.isfinite().all()):
                self.gate.calibrate(gram, full)
                self._calibrated = now.step
                return self._weights(full, now)
        return self._weights(self.gate.estimate(gram), now)

    def _reconcile(
        self, now: Comparison, rows: list[list[Tensor | None]], leaves: Sequence[Tensor], seed: Tensor
    ) -> list[Tensor | None]:
        """What the method makes of every objective's whole gradient."""
        aligned = align(now.average(rows, leaves))
        compared = {id(parameter) for parameter in now.shared}
        places = [index for index, place in enumerate(aligned.shared) if id(leaves[place]) in compared]
        gram = gram_matrix([[row[index] for index in places] for row in aligned.rows]) / float(seed) ** 2
        self._counts["num_exact"] += 1
        self._look(gram)
        if not bool(gram.isfinite().all()):
            found: Sequence[Tensor | None] = combine(aligned.rows, torch.ones(len(rows)))
        elif self._needs == "rows":
            self._counts["surgery_applied"] += 1
            found = self._method(Rows(aligned.rows, step=now.step, seed=self.seed))
        else:
            found = combine(aligned.rows, torch.tensor(self._weights(gram, now)))
        return aligned.in_order(found, [1.0] * len(rows))

    def _look(self, gram: Tensor) -> bool:
        """Show the gate a Gram matrix; whether there is a conflict."""
        if not bool(gram.isfinite().all()):
            self._counts["num_nonfinite"] += 1
            return False
        self.gate.look(gram)
        assert self.gate.conflicts is not None
        self._counts["num_looks"] += 1
        self._counts["num_pairs"] += len(gram) * (len(gram) - 1) // 2
        self._counts["num_conflicts"] += int(self.gate.conflicts.sum()) // 2
        return self.gate.is_open

    def _weights(self, gram: Tensor, now: Comparison) -> list[float]:
        """What the method answers; counted where it changes anything."""
        objectives = Objectives(gram, now.losses, now.step, self.seed)
        weights: list[float] = ask(self._method, objectives, len(gram)).tolist()
        self._counts["surgery_applied"] += int(any(weight != 1.0 for weight in weights))
        return weights


def _named(losses: Sequence[Tensor] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Objective -> loss; of a list, the place is the name."""
    if isinstance(losses, Tensor) or not isinstance(losses, Iterable):
        problem = f"needs a list or a dictionary of losses, and was given {_kind(losses)}."
        raise InputError(problem, hint="Give each objective's own loss: [loss_a, loss_b].")
    named = dict(losses) if isinstance(losses, Mapping) else {str(i): loss for i, loss in enumerate(losses)}
    if not named:
        raise InputError("needs at least one loss, and there are none.")
    for name, loss in named.items():
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            problem = f"losses must be 0-dim tensors, and that of objective {name!r} is {_kind(loss)}."
            raise InputError(problem, hint="Take the mean or sum of what the network computed.")
    return named


def _kind(given: object) -> str:
    return f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"of type {type(given).__name__}"


def _compared(graph: SharedGraph, among: set[int]) -> list[Tensor]:
    """The shared parameters of the model.

    Raises:
        InputError: no loss depends on any of its parameters.
    """
    shared = [leaf for leaf in graph.leaves(SHARED) if id(leaf) in among]
    if not shared and not any(id(leaf) in among for owner in range(len(graph.names)) for leaf in graph.leaves(owner)):
        hint = "Give the module, or the parameters, that they were computed with."
        raise InputError("the losses depend on none of the model's parameters.", hint=hint)
    return shared
