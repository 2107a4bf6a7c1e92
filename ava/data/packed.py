"""Documents packed into sequences of T tokens, none of which sees another.

Training packs by best fit. Validation packs in order, so that its targets are the documents one after the other, which
is what a compressor gets beside the model. Either way every token of every document is a target exactly once.

Which pieces share a sequence is the same in every epoch: documents that do not see each other learn nothing from it,
and the order of the sequences is the loader's. But where the rest of a long document stands among its pieces, and with
it every cut, is drawn anew in each epoch from seed, epoch and document. A piece begins with the token before it as its
first input, as a sequence of the stream does.

A batch is {"inputs", "targets", "documents"}: "documents" (B, T) int32 numbers a row's pieces 0, 1, ... and is -1
where the row is filled up; there the input is 0 and the target does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from ava.data.documents import Documents, Integers, of_bytes
from ava.data.keyed import uniform
from ava.data.packing import Plan, plan_best_fit, plan_in_order, within
from ava.data.sequences import Sequences, byte_stream, splits
from ava.data.source import IGNORED
from ava.errors import InputError


@dataclass(frozen=True, eq=False)
class Packed:
    """A split of packed documents.

    Attributes:
        documents: what is packed.
        context: T, the tokens in a sequence.
        plan: which pieces of them make up which sequence.
        seed: keys where long documents are cut in each epoch; None leaves the rest of each behind its other pieces.
    """

    documents: Documents
    context: int
    plan: Plan = field(repr=False)
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.plan.first) - 1

    @property
    def num_targets(self) -> int:
        """The targets that count, in one epoch."""
        return int(self.documents.lengths.sum())

    @property
    def padding(self) -> float:
        """The share of all places that holds nothing."""
        return 1 - self.num_targets / (len(self) * self.context)

    def fetch(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """The batch {"inputs", "targets", "documents"}, each (B, T), of the sequences `indices`."""
        counts = self.plan.first[indices + 1] - self.plan.first[indices]
        row = np.repeat(np.arange(len(indices)), counts)
        number = within(counts)
        pieces = self.plan.first[indices][row] + number
        starts, sizes = self._spans(self.plan.owner[pieces], self.plan.piece[pieces], epoch)
        ends = np.cumsum(sizes)
        # In a row one piece follows the other: what all pieces before take, less what those of earlier rows do.
        taken = np.concatenate((np.zeros(1, dtype=np.int64), ends))
        column = taken[:-1] - taken[np.cumsum(counts) - counts][row]
        place = np.repeat(row * self.context + column, sizes) + within(sizes)
        source = np.repeat(starts, sizes) + within(sizes)
        shape = (len(indices), self.context)
        inputs, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)
        documents = np.full(shape, -1, dtype=np.int32)
        inputs.reshape(-1)[place] = self.documents.tokens.take(source - 1)
        targets.reshape(-1)[place] = self.documents.tokens.take(source)
        documents.reshape(-1)[place] = np.repeat(number, sizes)
        arrays = {"inputs": inputs, "targets": targets, "documents": documents}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _spans(self, owner: Integers, piece: Integers, epoch: int) -> tuple[Integers, Integers]:
        """Where in the stream pieces begin in this epoch, and how long they are."""
        whole, rest = np.divmod(self.documents.lengths[owner], self.context)
        slot = whole
        if self.seed is not None:
            drawn = uniform(self.seed, epoch, owner, 1)[:, 0].astype(np.float64)
            slot = (drawn * (whole + 1)).astype(np.int64)
        is_rest = piece == whole
        begin = np.where(is_rest, slot, piece) * self.context + np.where(~is_rest & (piece >= slot), rest, 0)
        return self.documents.starts[owner] + begin, np.where(is_rest, rest, self.context)


def packed_splits(train: Documents, valid: Documents, context: int, seed: int) -> tuple[Packed, Packed]:
    """The two splits over packed documents.

    Raises:
        InputError: one of them has no token.
    """
    if not len(train.lengths):
        raise InputError("the training split has no token to predict.", hint="Give more data.")
    if not len(valid.lengths):
        raise InputError("the validation split is empty.", hint="Give more data or a larger data.valid_fraction.")
    return (
        Packed(train, context, plan_best_fit(train.lengths, context), seed),
        Packed(valid, context, plan_in_order(valid.lengths, context)),
    )


def text_splits(
    train: Sequence[bytes], valid: Sequence[bytes], context: int, seed: int, packing: Literal["stream", "documents"]
) -> tuple[Sequences, Sequences] | tuple[Packed, Packed]:
    """The two splits over texts, as one stream or as documents.

    Raises:
        InputError: there is too little text.
    """
    if packing == "documents":
        return packed_splits(of_bytes(train), of_bytes(valid), context, seed)
    return splits(byte_stream(train), byte_stream(valid), context, seed)


def told(train: Sequences | Packed, valid: Sequences | Packed, unit: str) -> str:
    """How much there is to predict in the two splits, for people."""
    words = f"{train.num_targets:,} {unit} for training, {valid.num_targets:,} for validation"
    if isinstance(train, Packed):
        words += f", documents packed, {100 * train.padding:.1f} % padding"
    return words
