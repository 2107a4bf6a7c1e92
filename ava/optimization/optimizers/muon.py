"""Muon."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import ByShape, Words
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.muon import nesterov_mean, orthogonal, running_mean
from ava.optimization.optimizers.stages.vectors import adamw_divide, adamw_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, PositiveInt, optimizer


@optimizer(title="Muon")
def muon(
    lr: PositiveFloat = 0.02,
    momentum: Decay = 0.95,
    nesterov: bool = True,
    weight_decay: NonNegativeFloat = 0.1,
    ns_steps: PositiveInt = 5,
    adamw_lr_ratio: PositiveFloat = 0.015,
    adamw_betas: tuple[Decay, Decay] = (0.9, 0.95),
    adamw_eps: NonNegativeFloat = 1e-8,
    use_muon: bool = True,
) -> ByShape:
    """Muon: momentum made orthogonal, for the hidden layers' matrices; AdamW for all else; fast on transformers.

        m <- mu m + (1 - mu) g;  u = mu m + (1 - mu) g (Nesterov; else m)
        p <- (1 - lr wd) p;      p <- p - lr sqrt(max(1, R / C)) newton_schulz(u)

    A convolution's kernel is seen as a matrix of dim 0 rows. Vectors follow AdamW, and so do embeddings and output
    heads, whose rows are no directions of a common space: those whose names say so (*embed*, wte, wpe, position*,
    head, *_head, classifier), if parameters are given with their names; `use_muon` in `groups` has the last word.

    Args:
        lr: learning rate of the matrices: of the size of one update's root mean square, in units of orthogonal ones.
        momentum: decay of the mean of gradients.
        nesterov: whether to look ahead along the momentum.
        weight_decay: decay per unit of learning rate, of the matrices at their rate, of all else at AdamW's.
        ns_steps: rounds of the orthogonalisation.
        adamw_lr_ratio: AdamW's learning rate as a share of `lr`, so that one schedule moves both.
        adamw_betas: decay of AdamW's means.
        adamw_eps: keeps AdamW's division from zero.
        use_muon: whether matrices follow Muon; in a param group with False all follow AdamW.

    Reference: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the decay after Liu et al. 2025,
    https://arxiv.org/abs/2502.16982.
    """
    decay = weight_decay and decoupled_decay
    others: Words = (adamw_moments, adamw_divide, decay, descend)
    matrices: Words = (running_mean, nesterov and nesterov_mean, orthogonal, decay, descend)
    return ByShape(matrices if use_muon else others, others)
