"""The triton engine gives what the reference engine gives; its kernels compile for a GPU that need not be there.

Kernels are printed everywhere. They run in triton's interpreter, in a process of its own, where triton is installed.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest
import torch

from ava.optimization import get_optimizer, list_optimizers
from ava.optimization.optimizers.engines import conduct, fused, reference
from ava.optimization.optimizers.engines.native import engine as native
from ava.optimization.optimizers.engines.triton import engine as triton
from ava.optimization.optimizers.engines.triton import kernel
from ava.optimization.optimizers.engines.triton.layout import CHUNK, LANES, SUM_DEPTH, SUM_LANES, TILE
from tests.optimization.optimizers.cells import SHARED
from tests.optimization.optimizers.engines.twins import (
    CHANGES,
    MATRIX_METHODS,
    PAIRS,
    Twins,
    gradient,
    options_of,
    values,
)

NAMES = list_optimizers()
ENGINES = {triton: "triton", native: "native", fused: "fused", reference: "reference"}
SHAPES = ((5, 3), (7,), (1,), (), (4, 3, 3, 3), (0,), (70, 67), (130, 5), (3, 1100))
"""Less and more than a piece, a tile and a block of 8 bits; one large enough for those."""
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}

interpreted = pytest.mark.skipif(
    not (kernel.is_installed() and kernel.is_interpreted()),
    reason="triton is not installed, or does not interpret (TRITON_INTERPRET=1)",
)
compiled = pytest.mark.skipif(
    not kernel.is_installed() or kernel.is_interpreted(), reason="triton is not installed, or interprets"
)


def layout_of(name, dtype=torch.float32, is_scaled=True, is_small=False, tensors=frozenset({"grad_scale"}), **options):
    """What the kernels of an optimizer are printed from; None where a whole matrix is needed."""
    optimizer = get_optimizer(name)([torch.nn.Parameter(torch.ones(4, 4, dtype=dtype))], lr=1e-3, **options)
    group = optimizer.param_groups[0]
    sentence, _ = optimizer.sentences(group)
    rounds = group["stochastic_rounding"] and dtype.itemsize == 2
    return triton.layout_of(group, sentence, group["state"], dtype, is_scaled, rounds, is_small, tensors, True)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_prints(name):
    layout = layout_of(name, **options_of(name))
    if name in MATRIX_METHODS:
        assert layout is None
        return
    source, order = kernel.print_kernels(layout)
    printed = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    run = [function for functions in order for function in functions]
    assert len(set(run)) == len(run)
    assert set(run) == {name for name in printed if not name.startswith("piece_of")}


SENSELESS = {("adafactor", "cautious"), ("adafactor", "grams"), ("lion", "atan2"), ("lion", "grams")}
"""Without momentum there is nothing to gate; a sign is divided by nothing and has no magnitude."""
MIXED = [(n, c) for n in ("adamw", "lion", "adafactor", "prodigy") for c in SHARED if (n, c) not in SENSELESS]


@pytest.mark.parametrize(("name", "cell"), MIXED)
def test_every_shared_option_prints(name, cell):
    dtype = torch.bfloat16 if cell == "stochastic_rounding" else torch.float32
    ast.parse(kernel.print_kernels(layout_of(name, dtype, **SHARED[cell]))[0])


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "nadam"])
def test_an_elementwise_step_is_two_launches(name):
    _, order = kernel.print_kernels(layout_of(name))
    assert order == [["between_0", "walk_0"], []]


def test_processors_have_no_triton_unless_it_interprets(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    triton._is_known.cache_clear()
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    seen = []
    choose = conduct.engine_for
    monkeypatch.setattr(conduct, "engine_for", lambda *a: seen.append((choose(*a), a[0])) or seen[-1][0])
    get_optimizer("adamw")([p]).step()
    triton._is_known.cache_clear()
    ((engine, batch),) = seen
    assert engine is not triton
    assert not triton.fits(batch)
    triton._is_known.cache_clear()


@compiled
@pytest.mark.slow
def test_in_the_interpreter():
    """Triton decides on import whether it interprets, so that takes a process of its own."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


POINTERS = {"gradients": "*i64", "items": "*i32", "num_pieces": "i32", "skip": "*u8", "tensors": "*i64"}


@compiled
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [
        ("adamw", torch.float32, {}),
        ("adamw", torch.float64, {}),
        ("adamw", torch.bfloat16, {"state": "bf16", "stochastic_rounding": True}),
        ("adamw", torch.float32, {"state": "int8", "atan2": True}),
        ("lion", torch.bfloat16, {"state": "factored", "cautious": True}),
        ("adafactor", torch.float32, {}),
        ("prodigy", torch.float16, {"noise": 0.1, "centralise": True}),
    ],
)
def test_kernels_compile_for_a_gpu(name, dtype, options, monkeypatch, tmp_path):
    """As far as machine code for an H100; where addresses allow it, 16 bytes are loaded and stored at once."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    layout = layout_of(name, dtype, **options)
    source, order = kernel.print_kernels(layout)
    functions = kernel.load(source)
    for function in (functions[name] for names in order for name in names):
        names = function.arg_names
        types = {a: POINTERS.get(a, "fp32" if a[0] == "h" and a[1:2].isdigit() else "*fp64") for a in names}
        types |= {f"h{k}": "*fp32" for k, x in enumerate(layout.inputs) if x in layout.on_device and f"h{k}" in types}
        given = ASTSource(fn=function, signature=types, constexprs={})
        built = build(given, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
        assert built.asm["cubin"]
        if dtype is torch.float32 and function.__name__.startswith("walk"):
            assert "ld.global.v4" in built.asm["ptx"]


@pytest.fixture
def spoken(monkeypatch):
    """The engines that ran, in order, each with its batch; the native engine stands aside."""
    seen = []
    monkeypatch.setattr(native, "fits", lambda batch: False)
    choose = conduct.engine_for

    def watch(batch, choice):
        engine = choose(batch, choice)
        if choice == "auto":
            seen.append((ENGINES[engine], batch))
        return engine

    monkeypatch.setattr(conduct, "engine_for", watch)
    return seen


def names_of(spoken):
    return {name for name, _ in spoken}


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
class TestInterpreted:
    """What runs in the interpreter: numbers behind the last element overflow there as they may."""

    @pytest.mark.parametrize("name", sorted(set(NAMES) - MATRIX_METHODS))
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
    def test_it_equals_the_reference(self, name, dtype, spoken):
        twins = Twins(name, SHAPES, dtype, **options_of(name)).train(3)
        assert names_of(spoken) == {"triton"}
        twins.check(TOLERANCE[dtype], flips=0.0 if dtype is torch.float64 else 1e-3)

    @pytest.mark.parametrize("name", sorted(set(NAMES) - MATRIX_METHODS))
    def test_bfloat16_parameters(self, name, spoken):
        twins = Twins(name, SHAPES, torch.bfloat16, **options_of(name)).train(2)
        assert names_of(spoken) == {"triton"}
        twins.check(2**-7, flips=2e-3)

    @pytest.mark.parametrize("cell", sorted(set(SHARED) - {"stochastic_rounding", "atan2"}))
    def test_every_shared_option(self, cell, spoken):
        twins = Twins("adamw", SHAPES, **{"weight_decay": 0.1, **SHARED[cell]}).train(4)
        assert names_of(spoken) == {"triton"}
        is_coded = cell in ("bf16", "int8", "factored")
        twins.check(1e-8 if is_coded else 1e-12, flips=1e-3 if cell in ("bf16", "int8") else 0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_stochastic_rounding(self, dtype, spoken):
        """The same bits are drawn: what differs was rounded at the edge."""
        twins = Twins("adamw", SHAPES, dtype, state="bf16", stochastic_rounding=True, eps=1e-4).train(2)
        assert names_of(spoken) == {"triton"}
        twins.check(1e-6, flips=5e-3)

    def test_atan2(self, spoken):
        """In float32; in float64 it is another engine's."""
        Twins("adamw", SHAPES, torch.float32, atan2=True).train(3).check(1e-5, flips=1e-3)
        assert names_of(spoken) == {"triton"}
        Twins("adamw", SHAPES, torch.float64, atan2=True).train(1).check(1e-12)
        assert names_of(spoken) == {"triton", "reference"}

    @pytest.mark.parametrize(("name", "chosen"), PAIRS, ids=lambda x: x if isinstance(x, str) else "+".join(x))
    def test_options_together(self, name, chosen, spoken):
        options = options_of(name)
        for cell in chosen:
            options |= SHARED[cell]
        dtype = torch.float32 if "atan2" in chosen else torch.float64
        twins = Twins(name, SHAPES, dtype, **options).train(2)
        assert names_of(spoken) == {"triton"}
        twins.check(1e-4 if dtype is torch.float32 else 1e-6, flips=1e-3)

    @pytest.mark.parametrize("name", ["adamw", "lion", "prodigy", "adafactor", "nadam"])
    @pytest.mark.parametrize("state", ["dense", "int8", "factored"])
    def test_scaled_gradients_and_skipped_steps(self, name, state, spoken):
        """A skipped step changes nothing: no parameter, no state, no counter."""
        twins = Twins(name, SHAPES, state=state, **options_of(name))
        for step in range(4):
            params, optimizer = twins.sides[0]
            held = [*params, *(v for p in params for v in optimizer.state[p].values())]
            before = [value.detach().clone() for value in held]
            twins.step(step, scale=2.0 ** (10 - step), skip=step in (0, 2))
            if step in (0, 2):
                assert all(torch.equal(x, y) for x, y in zip(held, before, strict=True))
        assert names_of(spoken) == {"triton"}
        twins.check(1e-12 if state == "dense" else 1e-6, flips=0 if state == "dense" else 1e-3)

    @pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "prodigy", "lamb", "rmsprop", "adopt"])
    def test_hyperparameters_move_between_steps(self, name, spoken):
        """A rate may become a tensor, which is read on the device."""
        twins = Twins(name, SHAPES[:5], **options_of(name))
        for step in range(12):
            for optimizer in twins.optimizers:
                for group in optimizer.param_groups:
                    group.update({k: v for k, v in CHANGES.get(step, {}).items() if k in group})
            twins.step(step)
        assert names_of(spoken) == {"triton"}
        twins.check(1e-12)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "options"),
        [("adafactor", {}), ("lion", {"state": "factored", "orthograd": True}), ("lamb", {})],
        ids=["adafactor", "lion", "lamb"],
    )
    def test_more_pieces_than_are_added_up_at_once(self, name, options, spoken):
        shapes = ((SUM_DEPTH * TILE + 9, SUM_LANES + 5), (7, 11), (LANES * CHUNK // 4 + 1, 5))
        twins = Twins(name, shapes, torch.float64, grouped=False, **options).train(2)
        assert names_of(spoken) == {"triton"}
        twins.check(1e-10)

    def test_a_schedule_prints_no_kernel(self, spoken):
        p = torch.nn.Parameter(torch.ones(3))
        optimizer = get_optimizer("adamw")([p])
        p.grad = torch.ones(3)
        optimizer.step()
        known = len(triton._KERNELS)
        for step in range(4):
            optimizer.param_groups[0].update(lr=10.0**-step, betas=(0.5, 0.9 + 0.01 * step), eps=10.0 ** -(step + 3))
            optimizer.step()
        assert len(triton._KERNELS) == known
        assert names_of(spoken) == {"triton"}

    @pytest.mark.parametrize("state", ["dense", "int8", "factored"])
    def test_addresses_that_are_no_multiple_of_16(self, state, spoken):
        """As of gradients that are views of one bucket."""
        results = []
        for engine in ("auto", "reference"):
            flat, bucket = values(((5001,), (5001,)), torch.float64)
            p = torch.nn.Parameter(flat[1:])
            optimizer = get_optimizer("adamw")([p], lr=1e-2, state=state, engine=engine)
            for _ in range(2):
                p.grad = bucket[1:]
                optimizer.step()
            results.append(p.detach())
        assert names_of(spoken) == {"triton"}
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)

    def test_new_gradients_elsewhere(self, spoken):
        """Addresses are taken anew where they have changed, and state is bound once."""
        twins = Twins("adamw", ((CHUNK + 1,),), torch.float64, grouped=False)
        kept = []
        for step in range(3):
            for params, optimizer in twins.sides:
                for p in params:
                    p.grad = gradient(p, step)
                    kept.append(p.grad)
                optimizer.found_inf = None
                optimizer.step()
        jobs = [batch.memo["triton"] for _, batch in spoken]
        assert all(job is jobs[0] for job in jobs)
        twins.check(1e-12)

    def test_transposed_parameters_are_others(self, spoken):
        p = torch.nn.Parameter(torch.ones(3, 4).t())
        p.grad = torch.ones(4, 3)
        get_optimizer("lion")([p]).step()
        assert names_of(spoken) == {"reference"}
