"""The native engine gives what the reference engine gives, for every sentence it has a kernel for."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from ava import registry
from ava.errors import InputError
from ava.optimization import get_optimizer, list_optimizers
from ava.optimization.optimizers.engines import conduct, fused, reference
from ava.optimization.optimizers.engines.native import build, job
from ava.optimization.optimizers.engines.native import engine as native
from ava.optimization.optimizers.engines.tracing.graph import Untraceable, record
from tests.optimization.optimizers.cells import SHARED


def has_compiler() -> bool:
    try:
        build.find_compiler()
    except build.NoCompiler:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler: the native engine is never used")

NAMES = list_optimizers()
ENGINES = {native: "native", fused: "fused", reference: "reference"}
MATRIX_METHODS = {"muon", "soap"}
SMALL = ((5, 3), (7,), (1,), (), (4, 3, 3, 3), (0, 4), (0,), (1, 13))
LARGE = ((37, 1009), (7919,), (16, 32, 3, 3))
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
STEPS = 15


@pytest.fixture
def spoken(monkeypatch):
    """The engines that ran, in order, each with its batch: a silent fallback would pass every comparison."""
    seen = []
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


def values(shapes, dtype):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@functools.cache
def noise(shape: tuple[int, ...], step: int) -> Tensor:
    seed = step * 1009 + sum(shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(p: Tensor, step: int) -> Tensor:
    """Of a quadratic, with noise that does not depend on the engine."""
    return (0.3 * p.detach() + noise(tuple(p.shape), step).to(p.dtype)).clone()


class Twins:
    """The same training by two engines, each on its own gradients' path but with the same noise."""

    def __init__(self, name, shapes, dtype=torch.float64, grouped=True, **options):
        self.sides = []
        for engine in ("auto", "reference"):
            params = [torch.nn.Parameter(value.clone()) for value in values(shapes, dtype)]
            groups = [{"params": params[::2]}, {"params": params[1::2], "lr": 2e-3}] if grouped else params
            optimizer = get_optimizer(name)(groups, **{"lr": 1e-3, **options}, engine=engine)
            self.sides.append((params, optimizer))

    @property
    def optimizers(self):
        return [optimizer for _, optimizer in self.sides]

    def step(self, step, scale=None, skip=False):
        for params, optimizer in self.sides:
            for p in params:
                p.grad = gradient(p, step) * (scale or 1)
                if skip and p.numel():
                    p.grad.view(-1)[0] = float("nan")
            if scale is not None:
                optimizer.grad_scale = torch.tensor(float(scale))
            optimizer.found_inf = torch.tensor(float(skip))
            if registry.optimizer[optimizer.name].tags.get("estimates") and step % 5 == 0:
                optimizer.take_estimate({p: noise(tuple(p.shape), step).to(p.dtype) ** 2 for p in params})
            kept = [p.grad.clone() for p in params]
            optimizer.step()
            for p, own in zip(params, kept, strict=True):
                assert torch.equal(p.grad, own) or p.grad.isnan().any()

    def train(self, steps=STEPS):
        for step in range(steps):
            self.step(step)
        return self

    def check(self, tolerance, flips=0.0):
        """Parameters and state agree; `flips` is the share of elements that may have been rounded to the other side."""
        if "prodigy" in self.optimizers[0].name:
            tolerance = max(tolerance, 1e-7)  # it sums p0 - p, of which the first steps leave few digits
        (ours, one), (theirs, other) = self.sides
        for p, q in zip(ours, theirs, strict=True):
            near(p, q, tolerance, flips, f"parameter of shape {tuple(p.shape)}")
            assert one.state[p].keys() == other.state[q].keys()
            for key, value in one.state[p].items():
                assert value.dtype is other.state[q][key].dtype
                near(value, other.state[q][key], tolerance, flips, key)
        for group, twin in zip(one.param_groups, other.param_groups, strict=True):
            for key, value in group.items():
                if isinstance(value, Tensor):
                    near(value, twin[key], tolerance, 0.0, key)


def near(value, expected, tolerance, flips, what):
    if value.dtype == torch.uint8 and what.endswith(".sign"):
        value, expected = ((bits[:, None] >> torch.arange(8)) & 1 for bits in (value, expected))
    size = expected.double().abs().max().item() if expected.numel() else 0.0
    close = torch.isclose(value.double(), expected.double(), rtol=tolerance, atol=tolerance * max(size, 1e-30))
    wrong = (~close).double().mean().item() if close.numel() else 0.0
    assert wrong <= flips, f"{what}: {wrong:.2%} differ by up to {(value.double() - expected.double()).abs().max():.2e}"


def options_of(name):
    """What lets every word of the sentence speak."""
    own = registry.optimizer[name].own
    return {"weight_decay": 0.1} if "weight_decay" in own else {}


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


PAIRS = [
    ("lion", ("factored", "cautious")),
    ("lion", ("int8", "orthograd")),
    ("adamw", ("int8", "cautious", "lookahead")),
    ("adamw", ("factored", "grams", "max_norm")),
    ("adamw", ("bf16", "noise", "unit_norm")),
    ("adamw", ("atan2", "cautious", "centralise", "standardise", "cautious_decay")),
    ("adafactor", ("int8", "coupled", "max_norm")),
    ("sgd", ("ademamix", "denoise", "non_negative")),
    ("prodigy", ("factored", "normalise")),
    ("lamb", ("int8", "orthograd", "grams")),
    ("schedule_free_adamw", ("bf16", "lookahead", "denoise")),
    ("adopt", ("factored", "ademamix")),
    ("mars", ("bf16", "centralise")),
]


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


@pytest.mark.parametrize("name", ["adamw", "lion", "prodigy", "adafactor", "sgd"])
@pytest.mark.parametrize("state", ["dense", "int8", "factored"])
def test_scaled_gradients_and_skipped_steps(name, state, spoken):
    twins = Twins(name, SMALL + LARGE[1:], state=state, **options_of(name))
    for step in range(8):
        before = [p.detach().clone() for p in twins.sides[0][0]]
        twins.step(step, scale=2.0 ** (10 - step), skip=step in (0, 5))
        if step in (0, 5):
            assert all(torch.equal(p, b) for p, b in zip(twins.sides[0][0], before, strict=True))
    assert names_of(spoken) == {"native"}
    twins.check(1e-12 if state == "dense" else 1e-6, flips=0 if state == "dense" else 1e-3)


CHANGES = {
    2: {"lr": 5e-3},
    4: {"weight_decay": 0.0},
    6: {"betas": (0.8, 0.95), "momentum": 0.5, "lr": torch.tensor(2e-3)},
    8: {"weight_decay": 0.2, "lr": 0.0},
    10: {"eps": 1e-6, "lr": 1e-3},
}


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "prodigy", "lamb", "rmsprop", "adopt"])
def test_hyperparameters_move_between_steps(name, spoken):
    """A schedule changes numbers, which must not build anything anew; a decay of 0 leaves its word out."""
    twins = Twins(name, SMALL, **options_of(name))
    for step in range(12):
        for optimizer in twins.optimizers:
            for group in optimizer.param_groups:
                group.update({k: v for k, v in CHANGES.get(step, {}).items() if k in group})
        twins.step(step)
    assert names_of(spoken) == {"native"}
    twins.check(1e-12)


def test_a_schedule_builds_no_kernel():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = get_optimizer("adamw")([p])
    p.grad = torch.ones(3)
    optimizer.step()
    known = len(native._KERNELS)
    for step in range(5):
        optimizer.param_groups[0].update(lr=10.0**-step, betas=(0.5, 0.9 + 0.01 * step), eps=10.0 ** -(step + 3))
        optimizer.step()
    assert len(native._KERNELS) == known


def transposed():
    return torch.nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double().t())


def channels_last():
    value = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    return torch.nn.Parameter(value.to(memory_format=torch.channels_last))


@pytest.mark.parametrize("make", [transposed, channels_last])
@pytest.mark.parametrize("is_dense_gradient", [True, False])
@pytest.mark.parametrize("options", [{}, {"state": "factored"}, {"centralise": True}], ids=lambda o: "".join(o))
def test_other_memory_layouts(make, is_dense_gradient, options):
    p, q, plain = make(), make(), torch.nn.Parameter(make().detach().contiguous())
    pairs = [
        (x, get_optimizer("adamw")([x], engine=engine, **options))
        for x, engine in ((p, "auto"), (q, "reference"), (plain, "auto"))
    ]
    for step in range(5):
        for x, optimizer in pairs:
            x.grad = torch.empty_like(x).copy_(gradient(x, step))
            if not is_dense_gradient:
                x.grad = x.grad.contiguous()
            optimizer.step()
    torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.detach(), plain.detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("bad", ["expanded", "strided", "storage"])
def test_a_later_gradient_of_another_layout(bad, spoken):
    """What was checked in the first step is checked in every one."""
    twins = Twins("adamw", ((6, 4),), grouped=False)
    twins.step(0)
    for params, optimizer in twins.sides:
        p = params[0]
        if bad == "expanded":
            p.grad = torch.ones(1, 4, dtype=p.dtype).expand(6, 4)
        elif bad == "strided":
            p.grad = torch.arange(48.0, dtype=p.dtype).view(6, 8)[:, ::2]
        else:
            p.data = p.detach().t().contiguous().t()
            p.grad = torch.ones(6, 4, dtype=p.dtype)
        optimizer.step()
    assert [name for name, _ in spoken] == ["native", "reference"]
    twins.step(2)
    twins.check(1e-12)


def test_state_and_parameters_may_be_replaced():
    """A loaded state dict, `p.data = ...` and a parameter without a gradient leave no stale address behind."""
    twins = Twins("adamw", SMALL, grouped=False).train(2)
    for step in range(3, 8):
        for params, optimizer in twins.sides:
            if step == 3:
                optimizer.load_state_dict(optimizer.state_dict())
            if step == 4:
                params[0].data = params[0].detach().clone() * 2
            if step == 5:
                optimizer.state[params[1]]["exp_avg"] = torch.ones_like(params[1])
            for number, p in enumerate(params):
                p.grad = None if (step, number) in {(5, 0), (6, 3)} else gradient(p, step)
            if step == 7:
                optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3, dtype=torch.float64))]})
                params += optimizer.param_groups[-1]["params"]
                params[-1].grad = torch.ones(3, dtype=torch.float64)
            optimizer.step()
    twins.check(1e-12)


@pytest.mark.parametrize("name", ["prodigy", "prodigy_adv", "prodigy_lion_adv", "lamb"])
def test_sums_over_groups_and_types(name, spoken):
    """One sum over all parameters, in however many batches they come."""
    results = []
    for engine in ("auto", "reference"):
        wide = [torch.nn.Parameter(value) for value in values(((37, 1009), (5,)), torch.float64)]
        narrow = [torch.nn.Parameter(value) for value in values(((11, 3), (0,)), torch.float32)]
        transposed_ = torch.nn.Parameter(torch.ones(4, 6, dtype=torch.float64).t())
        groups = [{"params": [*wide, *narrow]}, {"params": [transposed_], "lr": 0.5}]
        optimizer = get_optimizer(name)(groups, lr=1.0 if name != "lamb" else 1e-2, engine=engine)
        for step in range(STEPS):
            for p in (*wide, *narrow, transposed_):
                p.grad = 3 * gradient(p, step)
            optimizer.step()
        results.append([*wide, *narrow, transposed_])
    assert names_of(spoken) == {"native", "reference"}  # the transposed one is the reference's
    for p, q in zip(*results, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["adafactor"])
def test_rows_and_columns(name, spoken):
    """State of a row's or column's length, of matrices with one row, one column, and kernels."""
    shapes = ((1, 1), (1, 9), (9, 1), (64, 1025), (3, 2, 5), (2049, 17))
    twins = Twins(name, shapes, weight_decay=0.1).train()
    assert names_of(spoken) == {"native"}
    (ours, optimizer), _ = twins.sides
    assert optimizer.state[ours[3]]["exp_avg_sq_row"].numel() == 64
    twins.check(1e-12)


def test_numbers_that_are_not_finite_stay_where_they_are(spoken):
    """Without a guard a NaN is the user's to see; it does not reach its neighbours."""
    twins = Twins("adamw", ((2000,),), grouped=False, state="bf16")
    for params, optimizer in twins.sides:
        params[0].grad = torch.ones_like(params[0])
        params[0].grad[[3, 700]] = torch.tensor([float("nan"), float("inf")], dtype=torch.float64)
        optimizer.step()
    (p, q) = (params[0] for params, _ in twins.sides)
    assert torch.equal(p.isnan(), q.isnan())
    assert set(p.isnan().nonzero().flatten().tolist()) == {3, 700}
    assert names_of(spoken) == {"native"}


def test_float16_parameters(spoken):
    twins = Twins("lion", SMALL + LARGE, torch.float16).train(3)
    assert names_of(spoken) == {"native"}
    twins.check(2**-9, flips=2e-3)


def test_a_counter_is_kept_only_where_it_is_read(spoken):
    """Rounding at random needs the step's number; the same sentence without it has a kernel of its own."""
    narrow, wide, other = (torch.nn.Parameter(torch.ones(5, dtype=d)) for d in (torch.bfloat16, *[torch.float32] * 2))
    rounding = get_optimizer("sgd")([narrow, wide], stochastic_rounding=True)
    plain = get_optimizer("sgd")([other])
    for optimizer in (rounding, plain):
        for p in (narrow, wide, other):
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert rounding.state[wide]["step"] == 1
    assert "step" not in plain.state[other]
    assert torch.equal(wide, other)
    assert names_of(spoken) == {"native"}


def test_one_batch_of_many_optimizers(spoken):
    """Optimizers with the same sentence share a kernel and nothing else."""
    first, second = Twins("adamw", SMALL, grouped=False), Twins("adamw", SMALL, grouped=False, lr=1e-2)
    for step in range(6):
        first.step(step)
        second.step(step + 100)
    first.check(1e-12)
    second.check(1e-12)


def test_unknown_engines_are_refused():
    with pytest.raises(InputError, match="engine"):
        get_optimizer("adamw")([torch.nn.Parameter(torch.ones(2))], engine="native")
