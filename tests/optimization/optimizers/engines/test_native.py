"""The native engine gives what the reference engine gives, for every sentence it has a kernel for."""

from __future__ import annotations

import pytest
import torch

from ava.optimization import get_optimizer, list_optimizers
from ava.optimization.optimizers.engines.native import engine as native
from ava.optimization.optimizers.engines.native import job
from ava.optimization.optimizers.engines.tracing.graph import Untraceable, record
from tests.optimization.optimizers.cells import SHARED
from tests.optimization.optimizers.engines.twins import (
    LARGE,
    MATRIX_METHODS,
    PAIRS,
    SMALL,
    STEPS,
    Twins,
    gradient,
    has_compiler,
    names_of,
    options_of,
    values,
)

pytestmark = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler: the native engine is never used")

NAMES = list_optimizers()
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.mark.parametrize("name", sorted(set(NAMES) - MATRIX_METHODS))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_native_equals_the_reference(name, dtype, spoken):
    shapes = SMALL + LARGE
    twins = Twins(name, shapes, dtype, **options_of(name)).train()
    assert names_of(spoken) == {"native"}
    # An estimate below the last digit turns a sign round, and Prodigy's first steps are a division of tiny numbers.
    twins.check(TOLERANCE[dtype] * (1 if dtype is torch.float64 else 10), flips=0.0 if dtype is torch.float64 else 1e-3)


@pytest.mark.parametrize("name", sorted(set(NAMES) - MATRIX_METHODS))
def test_bfloat16_parameters(name, spoken):
    """One step differs by nothing but a rounding that fell on the other side."""
    twins = Twins(name, SMALL + LARGE, torch.bfloat16, **options_of(name)).train(3)
    assert names_of(spoken) == {"native"}
    twins.check(2**-7, flips=2e-3)


@pytest.mark.parametrize("name", sorted(MATRIX_METHODS))
def test_functions_of_whole_tensors_have_no_kernel(name, spoken):
    """Matrices are the reference's; vectors have a kernel, and both meet in one step."""
    twins = Twins(name, ((8, 6), (7,), (6, 2, 3)), **options_of(name)).train()
    for engine, batch in spoken:
        is_matrix = batch.parameters[0].ndim >= 2
        assert engine == ("reference" if is_matrix else "native")
        if is_matrix:
            with pytest.raises(Untraceable):
                record(batch.sentence, batch.group, False)
            assert native.kernel_of(batch, is_small=True) is None
    twins.check(1e-8)


@pytest.mark.parametrize("cell", SHARED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_every_shared_option(cell, dtype, spoken):
    rounds = cell == "stochastic_rounding"
    dtype = torch.bfloat16 if rounds else dtype
    twins = Twins("adamw", SMALL + LARGE, dtype, **{"weight_decay": 0.1, **SHARED[cell]}).train(2 if rounds else STEPS)
    assert names_of(spoken) == {"native"}
    if dtype is torch.float64:
        twins.check(1e-8 if cell in ("bf16", "int8", "factored") else 1e-12, flips=1e-4 if cell == "int8" else 0)
    else:
        twins.check(2**-6 if rounds else 1e-4, flips=1e-2 if cell in ("bf16", "int8") else 2e-3)


@pytest.mark.parametrize(("name", "chosen"), PAIRS, ids=lambda x: x if isinstance(x, str) else "+".join(x))
def test_options_together(name, chosen, spoken):
    options = options_of(name)
    for cell in chosen:
        options |= SHARED[cell]
    twins = Twins(name, SMALL + LARGE, **options).train()
    assert names_of(spoken) == {"native"}
    twins.check(1e-6 if {"bf16", "int8", "factored"} & set(chosen) else 1e-8, flips=1e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw", {"cautious": True, "state": "factored"}),
        ("adamw", {"state": "int8", "orthograd": True}),
        ("adafactor", {"lr": 1e-2}),
        ("prodigy", {}),
        ("lamb", {"weight_decay": 0.1}),
    ],
    ids=lambda x: x if isinstance(x, str) else "-".join(x),
)
def test_more_than_one_wave_of_pieces(name, options, spoken):
    """Several pieces a parameter and several runs of parameters, which all have to meet in the same sums."""
    shapes = ((601, 1009), (7,), (8, 7919), (job.WAVE + 1,), (3, 5))
    assert sum(torch.Size(s).numel() for s in shapes) > 2 * job.WAVE
    assert torch.Size(shapes[0]).numel() > 4 * job.CHUNK
    twins = Twins(name, shapes, grouped=False, **options).train(3)
    assert names_of(spoken) == {"native"}
    twins.check(1e-8, flips=1e-4 if options.get("state") == "int8" else 0)


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "prodigy", "lamb", "schedule_free_sgd"])
def test_threads_change_no_bit(name, spoken):
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            params = [torch.nn.Parameter(value) for value in values(((301, 1009), *LARGE, *SMALL), torch.float32)]
            optimizer = get_optimizer(name)(params, lr=1e-3, cautious=name not in ("adafactor", "schedule_free_sgd"))
            for step in range(4):
                for p in params:
                    p.grad = gradient(p, step)
                optimizer.step()
            results.append([*params, *(v for p in params for v in optimizer.state[p].values())])
    finally:
        torch.set_num_threads(before)
    assert names_of(spoken) == {"native"}
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
