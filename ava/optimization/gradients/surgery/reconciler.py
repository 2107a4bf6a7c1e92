"""From several losses to one gradient in `.grad`, step by step, over micro-batches and ranks.

    reconciler = Reconciler(bind("pcgrad"), parameters)
    for batch in window:
        reconciler.backward(losses(batch), weight)
    reconciler.finish(step)
    optimizer.step()

A method decides about the parameters that at least two objectives reach; heads get their own gradient. There are four
ways through the graph: one backward pass of losses with weights, where the method weighs whole losses; one with the
last weights, where new ones are not due; one that reconciles the shared features on its way; and one for each
objective, which is exact for the parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.alignment import Aligned
from ava.optimization.gradients.surgery.decisions import Decisions
from ava.optimization.gradients.surgery.features_level import FeatureRows, values
from ava.optimization.gradients.surgery.gram import combine, gram_matrix
from ava.optimization.gradients.surgery.graph import SharedGraph, divide, root
from ava.optimization.gradients.surgery.objectives import Observing
from ava.optimization.gradients.surgery.parameters_level import ParameterRows, take
from ava.optimization.gradients.surgery.ranks import Ranks, Sums
from ava.optimization.optimizers.engines.batch import wide_dtype

_Lists = list[list[Tensor | None]]


class Reconciler:
    """Backward passes of several losses, and one reconciled gradient.

    Args:
        method: with its options bound: `Objectives -> weights`, or `Rows -> gradients` where it needs rows.
        parameters: all that are trained. What their `.grad` held before a step is dropped.
        needs: what the method works from, as its registration says.
        level: whose gradients are compared.
        every: steps between two times that weights are worked out.
        reduction: "mean" divides everything by the number of objectives, heads included.
        seed: of what is random in a method.
        accumulates: a step may have several micro-batches. Only heeded where the method weighs whole losses: it then
            needs those of all micro-batches first, so that one backward pass is no longer enough.
        sum_over_ranks: adds a tensor up over the ranks that share the batch, on the CPU or a device, the same bits on
            all; None of one rank.
        world_size: how many ranks there are.

    Attributes:
        names: of the objectives, in the order of everything else; empty before the first step.

    Raises:
        InputError: a method that decides element by element cannot use old weights.
    """

    def __init__(
        self, method: Callable[..., Any], parameters: Sequence[Tensor], *,
        needs: str = "gram", level: Literal["parameters", "features"] = "parameters", every: int = 1,
        reduction: Literal["sum", "mean"] = "sum", seed: int = 0, accumulates: bool = False,
        sum_over_ranks: Sums | None = None, world_size: int = 1,
    ) -> None:  # fmt: skip
        self._decisions = Decisions(method, needs, every, seed)
        self._needs, self._level, self._reduction = needs, level, reduction
        self._parameters = list(parameters)
        self._ranks = Ranks(sum_over_ranks, world_size)
        self.names: tuple[str, ...] = ()
        self._scale: float | Tensor = 1.0
        self._is_exact = accumulates if needs == "losses" else level == "parameters"
        self._was_looked_at = False
        self._before: dict[str, Any] = {}
        self._begin()

    def backward(
        self, losses: Mapping[str, Tensor], weight: float | Tensor, *, scale: float | Tensor = 1.0,
        features: Sequence[Tensor] = (),
    ) -> None:  # fmt: skip
        """Add one micro-batch's gradients; its graph is used up.

        Args:
            losses: objective -> its loss, 0-dim; the same objectives in every call.
            weight: what every loss is multiplied with. Gradients are averaged over ranks, so where a loss is a sum over
                all ranks' samples the weight contains the number of ranks.
            scale: of the losses, against underflow in float16; the gradients keep it, methods do not see it.
            features: what the heads share, for methods that need its values; only asked for where the graph has not
                kept them.

        Raises:
            InputError: a loss reaches no parameter, the objectives are not those of the last call, the graph cannot be
                divided, or the level does not bear several micro-batches.
        """
        try:
            self._check(losses)
            if not self._num_batches:
                take(self._parameters)
                before = self._decisions.state_dict()
                # What a method remembers may change in place; weights and Gram matrices are replaced.
                self._before = before | {"method": copy.deepcopy(before["method"])}
            self._num_batches += 1
            self._scale = scale / len(losses) if self._reduction == "mean" else scale
            self._add_losses(losses, weight)
            self._pass(losses, [_like(loss, weight * self._scale) for loss in losses.values()], features)
        except BaseException:
            self._begin()
            raise

    def finish(self, step: int) -> None:
        """After the last micro-batch: exchange with the other ranks, reconcile, and leave the result in `.grad`.

        Args:
            step: optimizer steps taken before this one.

        Raises:
            InputError: there was no micro-batch.
        """
        if not self._num_batches:
            raise InputError("a step needs at least one `backward(losses, weight)` before `finish(step)`.")
        self._decisions.step = step
        if self._by_parameters:
            self._leave(self._rows.align(self._ranks))
        else:
            gradients = take(self._parameters)
            self._ranks.complete([gradients], self._parameters)
            self._ranks.average_(gradients)
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient
        self._decisions.step = step + 1
        self._begin()

    def conclude(self, skipped: bool | Tensor) -> None:
        """After the optimizer's step; if that changed nothing, what was decided and learned in it is forgotten.

        Args:
            skipped: whether it did; a tensor is waited for.
        """
        if bool(skipped):
            self._decisions.load_state_dict(self._before | {"step": self._decisions.step})
            self._begin()

    def gradients(self) -> list[Tensor]:
        """What the micro-batches so far have left."""
        rows = [*self._rows.rows, [parameter.grad for parameter in self._parameters]]
        return [gradient for row in rows for gradient in row if gradient is not None]

    @property
    def weights(self) -> Tensor | None:
        """(T,) float64 on the CPU, those last worked out; None before, and of methods that need rows."""
        return self._decisions.weights

    @property
    def gram(self) -> Tensor | None:
        """(T, T) float64 on the CPU, last seen and finite, of the averaged gradients without loss scale."""
        return self._decisions.gram

    @property
    def cosines(self) -> Tensor | None:
        """(T, T) between the gradients last seen; 0 beside one that is 0."""
        return self._decisions.cosines

    @property
    def wants_hindsight(self) -> bool:
        """Whether `observe` is to be told of the step that was just finished."""
        return self._decisions.wants_hindsight

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """After the optimizer's step: the losses of the same samples, over all ranks, weighted but not scaled."""
        method = self._decisions.method
        if isinstance(method, Observing):
            method.observe([float(losses[name]) for name in self.names])

    def columns(self) -> dict[str, float]:
        """For a log: `surgery/weight/<objective>`, `surgery/cosine/<objective>/<other>`, as last seen."""
        row: dict[str, float] = {}
        if self.weights is not None:
            row |= {f"surgery/weight/{n}": w for n, w in zip(self.names, self.weights.tolist(), strict=True)}
        if (cosines := self.cosines) is not None:
            for j, other in enumerate(self.names):
                row |= {f"surgery/cosine/{n}/{other}": float(cosines[i, j]) for i, n in enumerate(self.names[:j])}
        return row

    def state_dict(self) -> dict[str, Any]:
        """The objectives' names, the weights in use and since when, and what the method remembers."""
        return {"names": list(self.names), **self._decisions.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; a step that was begun is dropped."""
        self.names = tuple(state["names"])
        self._decisions.load_state_dict(state)
        self._begin()

    def _begin(self) -> None:
        """Nothing of the next step is there yet."""
        self._num_batches = 0
        self._losses: Tensor | None = None
        self._rows = ParameterRows(self._parameters)
        self._is_due = self._decisions.are_due
        self._by_parameters = self._is_due and self._is_exact

    def _check(self, losses: Mapping[str, Tensor]) -> None:
        if not losses or (self.names and tuple(losses) != self.names):
            problem = (
                f"the objectives are {', '.join(self.names) or 'not known'}, and now {', '.join(losses) or 'none'}."
            )
            raise InputError(problem, hint="Give all of them in every call, in one order.")
        for name, loss in losses.items():
            root(name, loss)
        if self._num_batches and self._is_due and not self._by_parameters:
            whose = "losses" if self._needs == "losses" else "features"
            problem = f"the weights come from the {whose} of a whole step, and this one has several micro-batches."
            remedy = "accumulates=True" if whose == "losses" else "level=parameters"
            raise InputError(problem, hint=f"Use {remedy}, or one micro-batch a step.")
        if self._is_exact and not self._was_looked_at:
            divide(losses).refuse_joint()
            self._was_looked_at = True
        self.names = tuple(losses)

    def _add_losses(self, losses: Mapping[str, Tensor], weight: float | Tensor) -> None:
        wide = wide_dtype(next(iter(losses.values())).device)
        found = torch.stack([loss.detach().to(wide) for loss in losses.values()]) * weight
        self._losses = found if self._losses is None else self._losses + found

    def _total_losses(self) -> Tensor:
        """(T,) of the step, over all ranks; waits for the device."""
        assert self._losses is not None
        return self._ranks.total(self._losses.to("cpu", torch.float64)) / self._ranks.size

    def _pass(self, losses: Mapping[str, Tensor], seeds: list[Tensor], features: Sequence[Tensor]) -> None:
        """Go through the graph in the one way that this step needs."""
        roots = list(losses.values())
        if self._by_parameters:
            self._rows.backward(roots, seeds)
        elif self._needs == "losses":
            weights = self._decisions.weigh(None, self._total_losses()) if self._is_due else self._last()
            torch.autograd.backward(roots, _times(seeds, weights.tolist()))
        elif self._is_due:
            self._reconcile_features(divide(losses), roots, seeds, features)
        else:
            graph, last = divide(losses), self._last().tolist()
            with graph.weighed(last, parameters=self._level == "parameters"):
                torch.autograd.backward(roots, _times(seeds, graph.seeds(last)))

    def _reconcile_features(
        self, graph: SharedGraph, roots: list[Tensor], seeds: list[Tensor], given: Sequence[Tensor]
    ) -> None:
        def reconcile(rows: _Lists) -> Sequence[Tensor | None]:
            return self._combine(rows, features)

        cut = FeatureRows(graph, reconcile)
        features = values(cut.places, graph.entries, given) if self._needs == "rows" else None
        with cut.hooked():
            torch.autograd.backward(roots, seeds)

    def _leave(self, aligned: Aligned) -> None:
        """Combine the rows, and lay everything into `.grad`."""
        of_heads = [1.0] * len(self.names)
        combined: Sequence[Tensor | None] = []
        if self._needs == "losses":
            weights = self._decisions.weigh(None, self._total_losses())
            combined, of_heads = combine(aligned.rows, weights), weights.tolist()
        elif aligned.shared:
            combined = self._combine(aligned.rows, None)
        for parameter, gradient in zip(self._parameters, aligned.in_order(combined, of_heads), strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def _combine(self, rows: _Lists, features: list[Tensor] | None) -> Sequence[Tensor | None]:
        """One gradient from T; their sum where one is not finite, for a guard to see."""
        # Each rank's features are its own samples', whose gradients no average over ranks has divided yet.
        apart = self._level == "features"
        unit = float(self._scale) * (self._ranks.size if apart else 1)
        gram = gram_matrix(rows, self._ranks.sums if apart else None) / unit**2
        if self._needs == "rows" and bool(gram.isfinite().all()):
            return self._decisions.mix(gram, _filled(rows), features, self._ranks.total)
        return combine(rows, self._decisions.weigh(gram, self._total_losses()))

    def _last(self) -> Tensor:
        assert self.weights is not None
        return self.weights


def _like(loss: Tensor, seed: float | Tensor) -> Tensor:
    return seed.to(loss) if isinstance(seed, Tensor) else loss.new_full((), seed)


def _times(seeds: list[Tensor], weights: Sequence[float]) -> list[Tensor]:
    return [seed if weight == 1 else seed * weight for seed, weight in zip(seeds, weights, strict=True)]


def _filled(rows: _Lists) -> list[list[Tensor]]:
    """Rows with zeros where there is none."""
    like = [next(gradient for gradient in column if gradient is not None) for column in zip(*rows, strict=True)]
    return [[torch.zeros_like(like[k]) if g is None else g for k, g in enumerate(row)] for row in rows]
