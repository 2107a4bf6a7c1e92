"""How often, and how much, objectives pull against each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.alignment import Gradients, align
from ava.optimization.gradients.surgery.cosines import cosines
from ava.optimization.gradients.surgery.gram import gram_matrix
from ava.optimization.options import check


class GradientConflictAnalyzer:
    """Compares the gradients of several objectives, and remembers the means over all calls.

        cosine_ij = <g_i, g_j> / (|g_i| |g_j|),    magnitude similarity_ij = 2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2)

    Args:
        threshold: a pair with a cosine below it is in conflict, -1 to 1.

    Raises:
        InputError: the threshold is no cosine.

    Reference: Yu et al. 2020, https://arxiv.org/abs/2001.06782
    """

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = check("threshold", threshold, float)
        if not -1 <= threshold <= 1:
            raise InputError("must be a cosine, from -1 to 1.", key="threshold", value=threshold)
        self._sums: dict[str, Any] = {}
        self._num_steps = 0

    def analyze(self, gradients: Gradients) -> dict[str, Any]:
        """Compare the gradients of one step.

        Args:
            gradients: T sequences of N tensors; None where an objective does not reach one. Only tensors that at
                least two objectives reach are compared.

        Returns:
            `cosines`, (T, T) float64 on the CPU, 0 beside a gradient that is 0, 1 on the diagonal;
            `magnitude_similarity`, of the same shape, 1 where two gradients are of one length; `num_pairs`;
            `num_conflicts`, pairs with a cosine below the threshold; `conflict_share`, over the pairs; and
            `min_cosine`, of the pair that is most in conflict. Where a gradient is not finite its cosines are nan, and
            no conflict.

        Raises:
            InputError: the gradients do not fit together.
        """
        aligned = align(gradients)
        found = self._compare(gram_matrix(aligned.rows))
        self._remember(found)
        return found

    def get_stats(self) -> dict[str, Any]:
        """The means of all that `analyze` found finite, under the same names, and `num_steps`, how many times.

        `num_conflicts` and `num_pairs` are totals, and `min_cosine` is the smallest of all.
        """
        if not self._num_steps:
            return {"num_steps": 0, "num_conflicts": 0, "num_pairs": 0, "conflict_share": 0.0}
        means = {key: self._sums[key] / self._num_steps for key in ("cosines", "magnitude_similarity")}
        totals = {key: self._sums[key] for key in ("num_conflicts", "num_pairs", "min_cosine")}
        share = totals["num_conflicts"] / max(totals["num_pairs"], 1)
        return {**means, **totals, "conflict_share": share, "num_steps": self._num_steps}

    def _compare(self, gram: Tensor) -> dict[str, Any]:
        norms = gram.diagonal().sqrt()
        lengths = torch.outer(norms, norms)
        squares = gram.diagonal()[:, None] + gram.diagonal()
        similarity = torch.where(squares == 0, torch.ones_like(gram), 2 * lengths / squares)
        upper = torch.triu_indices(len(gram), len(gram), 1)
        found = cosines(gram)
        pairs = found[upper[0], upper[1]]
        num_conflicts = int((pairs < self.threshold).sum())
        return {
            "cosines": found, "magnitude_similarity": similarity, "num_pairs": len(pairs),
            "num_conflicts": num_conflicts, "conflict_share": num_conflicts / max(len(pairs), 1),
            "min_cosine": float(pairs.min()) if len(pairs) else 1.0,
        }  # fmt: skip

    def _remember(self, found: dict[str, Any]) -> None:
        """Add to the sums; what is not finite would make all later means so."""
        if not bool(found["cosines"].isfinite().all()):
            return
        for key in ("cosines", "magnitude_similarity", "num_conflicts", "num_pairs"):
            self._sums[key] = self._sums[key] + found[key] if self._num_steps else found[key]
        self._sums["min_cosine"] = min(self._sums.get("min_cosine", 1.0), found["min_cosine"])
        self._num_steps += 1
