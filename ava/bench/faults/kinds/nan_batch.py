"""One batch that is not a number."""

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection
from ava.bench.faults.kinds._nan import poison_inputs


@kind(duration=1)
def nan_batch(injection: Injection) -> None:
    """NaN in the inputs of `duration` steps in a row; where inputs are tokens, in what their embeddings give."""
    poison_inputs(injection)
