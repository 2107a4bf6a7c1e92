"""Which objectives are in conflict, judged from a few parameters, with a memory against flicker.

The gate sees the Gram matrix G' of the gradients of a few parameters near the heads. Its cosines foretell those of all
parameters well but not exactly, so now and then it is shown the Gram matrix G of all of them, and from then on corrects
what it sees: it adds what the cosines were off by, and multiplies each norm by the ratio that was found.

    cos_ij  = clamp(cos'_ij + offset_ij),   offset = mean over calibrations of cos(G) - cos(G')
    |g_i|   = |g'_i| * ratio_i,             ratio  = geometric mean of |g_i| / |g'_i|

A pair is in conflict as soon as its cosine, corrected or as seen, is below the threshold, and until its smoothed
corrected cosine is above threshold + margin: strong conflicts are not missed for the smoothing, and noise about zero
does not open and close the gate all the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ava.optimization.gradients.surgery.cosines import cosines

_RECENT = 0.2
"""Weight of the newest calibration in the running means."""


class ConflictGate:
    """Decides pair by pair; all of it (T, T) in float64 on the CPU.

    Args:
        threshold: a pair with a cosine below it is in conflict.
        margin: how far above the threshold its smoothed cosine has to be for the conflict to be over.
        smoothing: weight of the past in the smoothed cosines.
    """

    def __init__(self, threshold: float = 0.0, margin: float = 0.02, smoothing: float = 0.8) -> None:
        self.threshold, self.margin, self.smoothing = threshold, margin, smoothing
        self.conflicts: Tensor | None = None
        """(T, T) bool, symmetric: which pairs are in conflict."""
        self.cosines: Tensor | None = None
        """(T, T), as they were seen last, corrected."""
        self._smoothed: Tensor | None = None
        self._offset: Tensor | None = None
        self._log_ratio: Tensor | None = None

    @property
    def is_open(self) -> bool:
        """Whether any pair is in conflict."""
        return self.conflicts is not None and bool(self.conflicts.any())

    def look(self, gram: Tensor) -> None:
        """Judge the gradients of one step.

        Args:
            gram: (T, T) of the few parameters, or of all; finite.
        """
        seen = cosines(gram)
        self.cosines = self._corrected(seen)
        if self._smoothed is None or len(self._smoothed) != len(gram):
            self._smoothed, self.conflicts = self.cosines, torch.zeros(gram.shape, dtype=torch.bool)
        assert self.conflicts is not None
        self._smoothed = self.smoothing * self._smoothed + (1 - self.smoothing) * self.cosines
        persist = self.conflicts & (self._smoothed <= self.threshold + self.margin)
        self.conflicts = (torch.minimum(seen, self.cosines) < self.threshold) | persist
        self.conflicts.fill_diagonal_(False)

    def calibrate(self, gram: Tensor, full: Tensor) -> None:
        """Learn how far the few parameters are from all.

        Args:
            gram: (T, T) of the few.
            full: (T, T) of all, of the same step; both finite.
        """
        offset = cosines(full) - cosines(gram)
        norms, of_few = full.diagonal().sqrt(), gram.diagonal().sqrt()
        known = (norms > 0) & (of_few > 0)
        log_ratio = torch.where(known, norms / of_few, 1.0).log()
        if self._offset is None or self._log_ratio is None or len(self._offset) != len(gram):
            self._offset, self._log_ratio = offset, log_ratio
        self._offset = torch.lerp(self._offset, offset, _RECENT)
        self._log_ratio = torch.lerp(self._log_ratio, log_ratio, _RECENT)

    def forget(self) -> None:
        """Unlearn all calibrations: gradients have moved on."""
        self._offset = self._log_ratio = None

    def estimate(self, gram: Tensor) -> Tensor:
        """(T, T), the Gram matrix of all parameters as it is to be expected; positive semidefinite.

        Args:
            gram: (T, T) of the few parameters; finite.
        """
        if self._log_ratio is None:
            return gram
        # Corrected cosines need not be those of any vectors: negative eigenvalues are cut off.
        values, vectors = torch.linalg.eigh(self._corrected(cosines(gram)))
        nearest = (vectors * values.clamp_min(0.0)) @ vectors.T
        scale = gram.diagonal().sqrt() * self._log_ratio.exp() / nearest.diagonal().clamp_min(1e-12).sqrt()
        estimated: Tensor = nearest * scale * scale[:, None]
        return estimated

    def state_dict(self) -> dict[str, Any]:
        """The five matrices, None before the first look or calibration."""
        return {key: getattr(self, key) for key in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for key in _STATE:
            setattr(self, key, state[key])

    def _corrected(self, seen: Tensor) -> Tensor:
        if self._offset is None or len(self._offset) != len(seen):
            return seen
        return (seen + self._offset).clamp(-1.0, 1.0)


_STATE = ("conflicts", "cosines", "_smoothed", "_offset", "_log_ratio")
