"""The options that every optimizer has: what each adds to a named optimizer's sentence, and where it makes no sense.

    lion                       interpolate, to_sign, decoupled_decay, descend
    lion, cautious=True        interpolate, to_sign, cautious, decoupled_decay, descend
    lion, decay="cautious"     interpolate, to_sign, cautious_decay, descend

The signature of `extend` is the schema of these options, for the configuration and for every class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from ava.errors import InputError
from ava.optimization.optimizers.sentence import ByShape, Sentence, Stage, Words, compose
from ava.optimization.optimizers.stages import constraint, decay, gate, gradient, moments
from ava.optimization.optimizers.stages.direction import to_sign
from ava.registry import Decay, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


def extend(
    words: Words | ByShape,
    /,
    state: Literal["dense", "bf16", "int8", "factored"] = "dense",
    cautious: bool = False,
    grams: bool = False,
    atan2: bool = False,
    orthograd: bool = False,
    ademamix: bool = False,
    ademamix_alpha: NonNegativeFloat = 5.0,
    ademamix_beta: Decay = 0.9999,
    centralise: bool = False,
    normalise: bool = False,
    standardise: bool = False,
    denoise: bool = False,
    noise: NonNegativeFloat = 0.0,
    decay: Literal["coupled", "decoupled", "cautious"] | None = None,
    stochastic_rounding: bool = False,
    fused_backward: bool = False,
    lookahead: PositiveInt | None = None,
    lookahead_alpha: Fraction = 0.5,
    sam_rho: PositiveFloat | None = None,
    sam_adaptive: bool = False,
    layer_lr_decay: Fraction | None = None,
    max_norm: PositiveFloat | None = None,
    unit_norm: bool = False,
    non_negative: bool = False,
    seed: NonNegativeInt = 0,
    groups: tuple[dict[str, Any], ...] = (),
) -> ByShape:
    """A named optimizer's words with the shared options put in.

    Args:
        words: what the named optimizer returns.
        state: how moments are stored: dense; bf16 (rounded stochastically); int8 (in blocks of 256); factored (rank-1
            magnitudes and a sign bit).
        cautious: update only where the gradient of this step agrees.
        grams: the gradient's sign at the update's magnitude.
        atan2: divide by an arc tangent, without eps.
        orthograd: drop the part of the gradient that only scales the weights.
        ademamix: add a second, slow mean of the gradients.
        ademamix_alpha: its weight.
        ademamix_beta: its decay.
        centralise: matrices' gradients lose their rows' means.
        normalise: each parameter's gradient at root mean square 1.
        standardise: each parameter's gradient with mean 0 and deviation 1.
        denoise: each element by the share of signal in its running mean and variance.
        noise: standard deviation of Gaussian noise added to gradients; it anneals with the steps.
        decay: how weights decay: with the gradient, beside it, or beside it where the update agrees; None as the
            optimizer's paper does.
        stochastic_rounding: round 16-bit parameters up or down at random, right in the mean.
        fused_backward: update each parameter as soon as its gradient is complete, and free the gradient.
        lookahead: steps between two meetings with slow weights.
        lookahead_alpha: how far slow weights go.
        sam_rho: sharpness-aware minimisation: the radius at which gradients are taken.
        sam_adaptive: whether the radius is relative to each weight (ASAM).
        layer_lr_decay: factor on the learning rate from each layer to the one before it.
        max_norm: greatest length of each row of weights.
        unit_norm: whether each row of weights has the length 1.
        non_negative: whether weights below zero become zero.
        seed: of the random numbers of noise and stochastic rounding.
        groups: overrides by parameter name: {match: GLOB, freeze: true, lr: 1e-4, ...}.

    Raises:
        InputError: an option makes no sense for this optimizer; says why.
    """
    routes = words if isinstance(words, ByShape) else ByShape(words, words)
    if cautious and grams:
        raise InputError(
            "cautious drops what the gradient contradicts and grams turns it round: choose one.",
            key="grams", value=grams,
        )  # fmt: skip
    edits: list[Edit | bool] = [
        atan2 and _divide_by_atan2, ademamix and _add_slow_average, cautious and _gate_cautiously,
        grams and _gate_by_grams, decay is not None and _decays(str(decay)),
    ]  # fmt: skip
    for edit in edits:
        routes = routes if isinstance(edit, bool) else _edit(routes, edit)
    first = compose((noise and gradient.add_noise, denoise and gradient.denoise))
    matrices_only = compose((centralise and gradient.centralise,))
    then = compose((
        standardise and gradient.standardise, normalise and gradient.normalise, orthograd and gradient.orthogonalise,
    ))  # fmt: skip
    last = compose((
        lookahead and constraint.look_ahead, non_negative and constraint.clamp_below_zero,
        max_norm and constraint.limit_norm, unit_norm and constraint.unit_rows,
    ))  # fmt: skip
    return ByShape(
        (*first, *matrices_only, *then, *compose(routes.matrices), *last),
        (*first, *then, *compose(routes.others), *last),
    )


Edit = Callable[[Sentence], "Sentence | InputError"]
"""Puts an option into a sentence, or says why it cannot be."""


def _edit(routes: ByShape, edit: Edit) -> ByShape:
    """Edit both routes; an option that suits one of two leaves the other as it is."""
    sentences = [compose(routes.matrices), compose(routes.others)]
    edited = [edit(sentence) for sentence in sentences]
    refusals = [result for result in edited if isinstance(result, InputError)]
    if len(refusals) == len(edited):
        raise refusals[0]
    chosen = [s if isinstance(e, InputError) else e for s, e in zip(sentences, edited, strict=True)]
    return replace(routes, matrices=chosen[0], others=chosen[1])


def _divide_by_atan2(sentence: Sentence) -> Sentence | InputError:
    if not any("atan2" in word.variants for word in sentence):
        return InputError(
            "atan2 takes the place of a division by a second moment, which this optimizer does not do.",
            key="atan2", value=True,
        )  # fmt: skip
    return tuple(word.variants.get("atan2", word) for word in sentence)


def _add_slow_average(sentence: Sentence) -> Sentence | InputError:
    if any(word is moments.slow_average or "ademamix" in word.variants for word in sentence):
        return InputError("this optimizer has its own slow mean of the gradients.", key="ademamix", value=True)
    return _insert_after(sentence, "moments", moments.slow_average)


def _gate_cautiously(sentence: Sentence) -> Sentence | InputError:
    return _gated(sentence, gate.cautious, "cautious")


def _gate_by_grams(sentence: Sentence) -> Sentence | InputError:
    if to_sign in sentence:
        return InputError(
            "grams keeps only the magnitude of the update, which here is 1: the momentum would count for nothing.",
            key="grams", value=True,
        )  # fmt: skip
    return _gated(sentence, gate.grams, "grams")


def _gated(sentence: Sentence, word: Stage, option: str) -> Sentence | InputError:
    if not any(slot.signed and not slot.exact and slot.shape == "full" for w in sentence for slot in w.slots):
        return InputError(
            f"{option} compares the update with the gradient, but without momentum they have the same signs.",
            key=option, value=True,
        )  # fmt: skip
    return _insert_after(sentence, "direction", word)


def _decays(kind: str) -> Edit:
    word = {"coupled": decay.coupled_decay, "decoupled": decay.decoupled_decay, "cautious": decay.cautious_decay}[kind]

    def edit(sentence: Sentence) -> Sentence:
        if any(kind in w.variants for w in sentence if w.part == "decay"):
            return tuple(w.variants.get(kind, w) if w.part == "decay" else w for w in sentence)
        rest = tuple(w for w in sentence if w.part != "decay")
        if len(rest) == len(sentence):
            return sentence
        before = "moments" if kind == "coupled" else "write"
        place = next(i for i, w in enumerate(rest) if w.part == before)
        return (*rest[:place], word, *rest[place:])

    return edit


def _insert_after(sentence: Sentence, part: str, word: Stage) -> Sentence:
    """Put a word behind the last of a part, or of the moments where the part is missing."""
    places = _places(sentence, part) or _places(sentence, "moments")
    return (*sentence[: places[-1] + 1], word, *sentence[places[-1] + 1 :])


def _places(sentence: Sequence[Stage], part: str) -> list[int]:
    return [index for index, word in enumerate(sentence) if word.part == part]
