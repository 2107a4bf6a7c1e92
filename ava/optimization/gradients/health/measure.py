"""One pass over the gradients: every norm, whether anything is not finite, and how the elements are distributed.

    measured = measure(model.parameters())
    optimizer.found_inf = measured.found_inf    # the step is skipped on the device, where it must be

Nothing is read by the host. Norms are summed in double precision: squares of float32 neither overflow nor vanish there,
so a norm is infinite only where an element is, and 150 million small numbers are not lost beside a large sum. Sharded
gradients (DTensor) are measured whole: each rank looks at its part, and ranks add up what they hold apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.health import native, shards
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.gradients.health.statistics import Gathered, gather, nothing, summarise
from ava.optimization.optimizers.engines.batch import local, wide_dtype

Kind: TypeAlias = tuple[torch.device, bool, shards.Ranks]
"""Device, whether the elements are float64, and the ranks among which they are cut."""
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class _Found:
    """In all gradients.

    Attributes:
        norms: as of `Measurement`, like the next two.
        norm: of all together.
        found_inf: whether anything is not finite.
        gathered: what their parts on this rank gather, and among which ranks they are cut; one of each kind.
    """

    norms: Tensor
    norm: Tensor
    found_inf: Tensor
    gathered: list[tuple[Gathered, shards.Ranks]]


@torch.no_grad()
def measure(parameters: Tensor | Iterable[Tensor], *, statistics: bool = False) -> Measurement:
    """Measure the gradients of parameters, over all shards; nothing is read by the host.

    A DTensor's gradient that ranks hold as summands (Partial) is summed first, and `.grad` holds the sum afterwards.

    Args:
        parameters: one or several, of any floating-point types, devices and meshes; those without a gradient are left
            out.
        statistics: whether to take mean, deviation, extremes and zeros as well.

    Returns:
        What was found, on the gradients' device: an accelerator, if any of them is on one. No gradients have norm 0.

    Raises:
        InputError: a gradient is sparse or complex, or something has none because it is no tensor.
    """
    owners, gradients = _with_gradient(parameters)
    if not gradients:
        zero = torch.zeros((), dtype=torch.float64)
        return Measurement([], [], torch.zeros(0), zero, torch.zeros(()), nothing(zero) if statistics else None)
    table = native.tabulate(gradients)
    if table is not None:
        found, count = _walk(table, statistics), table.elements
    else:
        gradients = [_whole(parameter, gradient) for parameter, gradient in zip(owners, gradients, strict=True)]
        found, count = _by_kind(gradients, statistics), sum(map(Tensor.numel, gradients))
    told = summarise(found.gathered, found.norm, count) if statistics else None
    return Measurement(owners, gradients, found.norms, found.norm, found.found_inf, told)


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that have a gradient, and the gradients."""
    owners, gradients = [], []
    try:
        for parameter in [parameters] if isinstance(parameters, Tensor) else parameters:
            if (gradient := parameter.grad) is not None:
                owners.append(parameter)
                gradients.append(gradient)
    except (AttributeError, TypeError) as error:
        what = f"gradients are those of a model or of parameters; this is something else: {error}."
        raise InputError(what, hint="Pass model.parameters(), not names or numbers.") from error
    return owners, gradients


def _whole(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A gradient that is dense and real, with no summands left on other ranks."""
    what = f"the gradient of a parameter of shape {tuple(parameter.shape)}"
    if gradient.layout is not torch.strided:
        raise InputError(
            f"{what} is sparse; dense ones can be measured.",
            hint="Build its layer with sparse=False, or leave the parameter out.",
        )
    if gradient.dtype not in native.CODES:
        raise InputError(
            f"{what} is {gradient.dtype}; float32, float64, bfloat16 and float16 can be measured.",
            hint="Keep a complex parameter as two real numbers (torch.view_as_real), or leave it out.",
        )
    return shards.reduce_partial(parameter) if shards.is_partial(gradient) else gradient


def _walk(table: native.Table, statistics: bool) -> _Found:
    """All gradients in one walk of the kernel, which also finishes the norms."""
    walked = native.walk(table, statistics=statistics)
    gathered: list[tuple[Gathered, shards.Ranks]] = [(_gathered(walked), ())] if statistics else []
    return _Found(walked.narrow[:-1], walked.norms[-1], walked.narrow[-1], gathered)


def _by_kind(gradients: list[Tensor], statistics: bool) -> _Found:
    """Each device, and each set of ranks, for itself; then all together."""
    groups: dict[Kind, list[int]] = {}
    for place, gradient in enumerate(gradients):
        kind = (gradient.device, gradient.dtype is torch.float64, shards.ranks(gradient))
        groups.setdefault(kind, []).append(place)
    home = next((device for device, _, _ in groups if device.type != "cpu"), gradients[0].device)
    found = [_of_kind(kind, [gradients[place] for place in places], statistics) for kind, places in groups.items()]
    norms = _in_order([norms for norms, _ in found], list(groups.values()), home)
    unit = shards.scale_of(norms.amax())
    norm = torch.linalg.vector_norm(norms / unit) * unit
    is_finite = torch.isfinite(norms)
    # A norm beyond float32 is its largest number there: infinity would say that an element is not finite.
    narrow = torch.where(is_finite, norms.clamp(max=_LARGEST), norms).float()
    found_inf = (~is_finite.all()).float()
    gathered = [(part, kind[2]) for kind, (_, part) in zip(groups, found, strict=True) if part is not None]
    return _Found(narrow, norm, found_inf, gathered)


def _of_kind(kind: Kind, gradients: list[Tensor], statistics: bool) -> tuple[Tensor, Gathered | None]:
    """The (n,) norms over all shards of gradients of one kind, in float64, and what their parts on this rank gather."""
    device, is_wide, over = kind
    parts = [local(gradient) for gradient in gradients]
    table = native.tabulate(parts)
    if table is not None:
        walked = native.walk(table, statistics=statistics)
        norms, gathered = walked.norms[:-1], _gathered(walked) if statistics else None
    else:
        norms = _norms_of_wide(parts) if is_wide else torch.stack(torch._foreach_norm(parts, 2, wide_dtype(device)))
        gathered = gather(parts) if statistics else None
    return shards.length(norms, over, is_wide=is_wide), gathered


def _gathered(walked: native.Walked) -> Gathered:
    return Gathered(walked.summary[:4], walked.summary[4:])


def _norms_of_wide(parts: list[Tensor]) -> Tensor:
    """The norms of float64 tensors, whose squares may not fit into any type: in units of the largest element."""
    largest = torch.stack([part.abs().amax() if part.numel() else part.new_zeros(()) for part in parts])
    units = shards.scale_of(largest)
    scaled = [part / unit for part, unit in zip(parts, units, strict=True)]
    return torch.stack(torch._foreach_norm(scaled, 2)) * units


def _in_order(norms: list[Tensor], places: list[list[int]], home: torch.device) -> Tensor:
    """The norms of all groups in the order of the gradients."""
    if len(norms) == 1:
        return norms[0]
    wide, may_run_ahead = wide_dtype(home), home.type != "cpu"
    moved = [one for group in norms for one in group.to(home, wide, non_blocking=may_run_ahead).unbind()]
    order = [place for group in places for place in group]
    return torch.stack([one for _, one in sorted(zip(order, moved, strict=True), key=lambda pair: pair[0])])
