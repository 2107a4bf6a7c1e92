"""Random tokens for measurements of speed, which no text limits: a plugin, `plugins=[ava.bench.gpu_data]`."""

from __future__ import annotations

import numpy as np

from ava.data.sequences import splits
from ava.data.source import Data, TokenSpec
from ava.registry import PositiveInt, data


@data(kind="tokens")
def random_tokens(
    seed: int, /, vocab_size: PositiveInt = 50304, context: PositiveInt = 2048, samples: PositiveInt = 256
) -> Data:  # fmt: skip
    """Tokens drawn at random; nothing can be learned from them but their frequency.

    Args:
        seed: the run's seed.
        vocab_size: GPT-2's, rounded up to a multiple of 64.
        context: T, the tokens in a sequence.
        samples: sequences of the training split.
    """
    tokens = np.random.default_rng(seed).integers(0, vocab_size, samples * context + 1, dtype=np.int32)
    train, valid = splits(tokens, tokens[: context + 1], context, seed)
    spec = TokenSpec(vocab_size=vocab_size, context=context)
    return Data(train, valid, spec, f"{samples:,} random sequences of {context:,} tokens")
