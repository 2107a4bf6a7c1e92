"""Faults on purpose, to see what a training makes of them.

    with inject(run, Fault("nan_batch", at=100)):          # a run of Ava's
        trainer.train()

    parts = Parts(model, optimizer, num_classes=10)        # any training: a bare loop, another library's trainer
    with inject(parts, Fault("corrupt_samples", at=50, size=0.25)) as faults:
        for batch in loader:
            inputs, targets = faults.batch(batch)          # only kinds that change batches need this line
            ...

Nothing in the product knows of it: torch's hooks on modules, parameters and optimizers do it. Time is counted in
attempts, which are steps of the optimizer that were really tried: a run that goes back to an earlier step does not meet
its fault again. A new kind is one file in `kinds`, or one decorated function anywhere:

    @kind(duration=1, size=2.0)
    def my_fault(injection: Injection) -> None:
        \"\"\"What it is, in one line.\"\"\"
        injection.on_gradients(injection.placed(), lambda gradient: injection.fault.size * gradient)
"""

from ava.bench.faults.fault import Fault, Kind, get_fault, kind, list_faults
from ava.bench.faults.injection import Injected, Injection, inject
from ava.bench.faults.parts import Parts

__all__ = ["Fault", "Injected", "Injection", "Kind", "Parts", "get_fault", "inject", "kind", "list_faults"]
