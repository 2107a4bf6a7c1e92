"""`ava bench packing`: documents packed whole, beside one stream of all and beside a row for each.

    ava bench packing                                the definitions of the standard library, context 1024
    ava bench packing --documents files --context 4096 --steps 0 --json packing.json

The documents are the standard library's files, or their top-level definitions, which are short. Three ways to cut
them: `stream` joins all and cuts, so that a token may see other documents; `documents` packs them by best fit; `alone`
gives each piece a row of its own. `padding` is the share of places that hold nothing, `cut` that of the documents which
do not stand whole in one sequence. Speed is targets that count per second of processor time, on one thread, of training
a small GPT; its ratio is the median over rounds of a way's over the stream's in the same round. Then each way trains
from the same weights for the same number of steps and rows, and is measured on the same held-out documents, each alone
(`bits alone`) and as one stream (`bits stream`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ava.bench import machine
from ava.bench.tables import show
from ava.bench.trainings import not_negative, positive
from ava.data.documents import Documents, of_bytes
from ava.data.loader import Batch, Position, TrainingLoader, evaluation_batches
from ava.data.packed import Packed, packed_splits
from ava.data.packing import Plan, plan_in_order
from ava.data.sequences import Sequences, byte_stream
from ava.data.source import Data, TokenSpec
from ava.data.stdlib import stdlib
from ava.models.gpt import GPT
from ava.tasks.language_model import LanguageModel

COLUMNS = {
    "way": "way", "padding": "padding", "cut": "cut", "rows": "rows", "ratio": "speed / stream", "speed": "targets / s",
    "alone": "bits alone", "stream": "bits stream",
}  # fmt: skip
ROUNDS = 7
STEPS_A_TURN = 2
HELD_OUT = 150_000
"""Bytes of held-out documents, at least."""
LR, WARM_UP = 2e-3, 20


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        title, rows = measure(arguments)
    finally:
        torch.set_num_threads(threads)
    show(title, COLUMNS, ("way",), rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": title, "rows": rows}, indent=2), encoding="utf-8")
    return 0


def measure(arguments: argparse.Namespace) -> tuple[str, list[dict[str, Any]]]:
    """What was measured, in words, and one row a way."""
    train, valid = texts(arguments.documents)
    ways = splits(train, arguments.context)
    costs = speeds(ways, arguments)
    seeds = range(arguments.seeds if arguments.steps else 0)
    bits = {way: [score(split, valid, arguments, seed) for seed in seeds] for way, split in ways.items()}
    lengths = [len(text) for text in train]
    title = (
        f"{machine.describe()}; {len(train):,} {arguments.documents}, median {statistics.median(lengths):.0f} bytes, "
        f"mean {statistics.mean(lengths):.0f}; context {arguments.context}, {arguments.steps} steps"
    )
    return title, [_row(way, split, train, costs, bits[way]) for way, split in ways.items()]


def texts(kind: str) -> tuple[list[bytes], list[bytes]]:
    """Documents for training and held out: files, or what starts with a top-level `def` or `class`."""
    data = stdlib(0, packing="documents")
    train, valid = (_contents(split.documents) for split in (data.train, data.valid) if isinstance(split, Packed))
    if kind == "definitions":
        train, valid = ([part for file in files for part in _definitions(file)] for files in (train, valid))
    sizes = np.cumsum([len(text) for text in valid])
    return train, valid[: int(np.searchsorted(sizes, HELD_OUT)) + 1]


def _contents(documents: Documents) -> list[bytes]:
    stream = np.asarray(documents.tokens)
    spans = zip(documents.starts, documents.lengths, strict=True)
    return [stream[start : start + length].tobytes() for start, length in spans]


def _definitions(file: bytes) -> list[bytes]:
    return [part for part in re.split(rb"(?m)^(?=(?:async )?def |class )", file) if part]


def splits(train: list[bytes], context: int) -> dict[str, Sequences | Packed]:
    """The three ways to cut."""
    documents = of_bytes(train)
    order = plan_in_order(documents.lengths, context)
    alone = Plan(order.owner, order.piece, np.arange(len(order.owner) + 1))
    return {
        "stream": Sequences(byte_stream(train), context, 0),
        "documents": packed_splits(documents, documents, context, 0)[0],
        "alone": Packed(documents, context, alone, 0),
    }


def speeds(ways: dict[str, Sequences | Packed], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Targets that count per second of processor time, one value a round."""
    trainings = {way: _training(split, arguments, 0, 10**6) for way, split in ways.items()}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(arguments.rounds + 1):
        for way in random.Random(number).sample(list(ways), len(ways)):
            start = time.process_time()
            count = sum(next(trainings[way])[1] for _ in range(STEPS_A_TURN))
            if number:  # the first warms up
                found[way].append(count / (time.process_time() - start))
    return found


def score(
    split: Sequences | Packed, valid: list[bytes], arguments: argparse.Namespace, seed: int
) -> tuple[float, float]:
    """Bits per byte after training: of each held-out document alone, and of all as one stream."""
    (model, _) = deque(_training(split, arguments, seed, arguments.steps), maxlen=1).pop()
    documents, context = of_bytes(valid), arguments.context
    alone = Packed(documents, context, plan_in_order(documents.lengths, context))
    return _bits(model.eval(), alone), _bits(model, Sequences(byte_stream(valid), context))


def _training(
    split: Sequences | Packed, arguments: argparse.Namespace, seed: int, steps: int
) -> Iterator[tuple[nn.Module, int]]:  # fmt: skip
    """After each step: the model, and the targets that counted in it."""
    torch.manual_seed(seed)
    spec = TokenSpec(256, arguments.context, "byte")
    model = GPT(spec, layers=3, width=128, heads=2)
    task = LanguageModel(Data(split, split, spec, ""))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / WARM_UP, 1 - step / steps))
    for window, _ in zip(_batches(split, arguments.batch_size, seed), range(steps), strict=False):
        count = max(task.count(window), 1)
        torch.autograd.backward(task.losses(model, window)["loss"] / count)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        yield model, count


def _batches(split: Sequences | Packed, batch_size: int, seed: int) -> Iterator[Batch]:
    loader = TrainingLoader(split, batch_size=batch_size, seed=seed)
    return (window.batches[0] for window in loader.windows(Position()))


def _bits(model: nn.Module, split: Sequences | Packed) -> float:
    spec = TokenSpec(256, split.context, "byte")
    task = LanguageModel(Data(split, split, spec, ""))
    with torch.no_grad():
        parts = [task.evaluate(model, batch) for batch in evaluation_batches(split, batch_size=16)]
    sums = {key: float(torch.stack([part[key] for part in parts]).sum()) for key in parts[0]}
    return task.summarise(sums)["eval/bits_per_byte"]


def _row(
    way: str, split: Sequences | Packed, train: list[bytes], costs: dict[str, list[float]],
    bits: list[tuple[float, float]],
) -> dict[str, Any]:  # fmt: skip
    pairs = zip(costs[way], costs["stream"], strict=True)
    alone, stream = zip(*bits, strict=True) if bits else ((), ())
    return {
        "way": way, "padding": f"{100 * (1 - split.num_targets / (len(split) * split.context)):.1f} %",
        "cut": f"{100 * _cut(split, train):.0f} %", "rows": len(split),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3), "speed": round(statistics.median(costs[way])),
        "alone": " ".join(f"{b:.3f}" for b in alone), "stream": " ".join(f"{b:.3f}" for b in stream),
    }  # fmt: skip


def _cut(split: Sequences | Packed, train: list[bytes]) -> float:
    """The share of documents that do not stand whole in one sequence."""
    lengths = np.array([len(text) for text in train])
    if isinstance(split, Packed):
        return float((lengths > split.context).mean())
    starts = np.cumsum(lengths + 1) - lengths - 1
    return float((starts // split.context != (starts + lengths - 1) // split.context).mean())


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench packing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--documents", choices=("definitions", "files"), default="definitions", help="of what length")
    parser.add_argument("--context", type=positive, default=1024, help="tokens in a sequence (default 1024)")
    parser.add_argument("--batch-size", type=positive, default=4, help="sequences a step (default 4)")
    parser.add_argument("--steps", type=not_negative, default=150, help="of each training; 0: speed only (default 150)")
    parser.add_argument("--seeds", type=positive, default=2, help="trainings of each way (default 2)")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"turns that count (default {ROUNDS})")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)
