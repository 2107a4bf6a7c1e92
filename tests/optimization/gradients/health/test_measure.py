"""One pass finds what float64 arithmetic on all gradients in a row finds."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ava.errors import InputError
from ava.optimization.gradients.health import native
from ava.optimization.gradients.health.measure import measure
from ava.optimization.gradients.health.scale import scale_
from ava.optimization.optimizers.engines.native import build

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(3, 4), (0,), (5,), (2, 3, 4, 4), (70_001,), (), (1500, 3)]


def with_gradients(*gradients):
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return parameters


def mixture(seed, dtypes=DTYPES):
    """Gradients of every type and shape: some zeros, some in other orders, some with gaps."""
    generator = torch.Generator().manual_seed(seed)
    gradients = []
    for dtype in dtypes:
        for shape in SHAPES:
            x = torch.randn(shape, generator=generator).to(dtype)
            x[torch.rand(shape, generator=generator) < 0.2] = 0
            gradients.append(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x)
    gradients += [torch.randn(40, 30, generator=generator).t(), torch.randn(40, 30, generator=generator)[:, ::2]]
    return with_gradients(*gradients)


def in_a_row(parameters):
    return torch.cat([p.grad.double().reshape(-1) for p in parameters])


def expect(measured, parameters):
    """Everything as of one float64 vector."""
    x, told = in_a_row(parameters), measured.statistics
    largest = x.abs().amax()
    unit = largest if 0 < largest < math.inf else 1.0
    wanted = {
        "norm": (x / unit).norm() * unit, "mean": x.mean(), "max": x.max(), "min": x.min(),
        "std": (x / unit).std(correction=0) * unit,
    }  # fmt: skip
    spread = wanted["std"].item() if math.isfinite(wanted["std"]) else 1.0
    for name, value in wanted.items():
        given = measured.norm if name == "norm" else getattr(told, name)
        close = {"rtol": 1e-6, "atol": 1e-7 * spread if name == "mean" else 0.0, "equal_nan": True}
        torch.testing.assert_close(given, value, **close, msg=lambda text, name=name: f"{name}: {text}")
    assert told.num_zeros == (x == 0).sum()
    torch.testing.assert_close(told.sparsity, (x == 0).double().mean())
    assert told.has_nan == x.isnan().any()
    assert told.has_inf == x.isinf().any()
    assert measured.found_inf == (~x.isfinite()).any()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_of_types_and_layouts(route, seed, threads, monkeypatch):
    monkeypatch.setattr(native, "ELEMENTS_OF_A_THREAD", 1000)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    parameters = mixture(seed)
    measured = measure(parameters, statistics=True)
    torch.set_num_threads(before)
    expect(measured, parameters)
    norms = torch.stack([p.grad.double().norm() for p in parameters]).float()
    torch.testing.assert_close(measured.norms, norms, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 3, 4, 11, 28], ids="tensor{}".format)
def test_what_is_not_finite_is_found(route, bad, place):
    parameters = mixture(0)
    gradient = parameters[place].grad
    gradient[tuple(size - 1 for size in gradient.shape)] = bad
    measured = measure(parameters, statistics=True)
    expect(measured, parameters)
    assert measured.found_inf == 1
    assert torch.isfinite(measured.norms).tolist() == [place != other for other in range(len(parameters))]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1e30, torch.float32), (3e38, torch.float32), (1e-30, torch.float32), (1e-42, torch.float32),
        (1e30, torch.bfloat16), (1e-30, torch.bfloat16), (65504.0, torch.float16), (6e-8, torch.float16),
        (1e200, torch.float64), (1e-200, torch.float64),
    ],
    ids=str,
)  # fmt: skip
def test_squares_that_overflow_or_vanish(route, value, dtype):
    gradient = torch.full((3000,), value, dtype=dtype)
    parameters = with_gradients(gradient, torch.zeros(7))
    measured = measure(parameters, statistics=True)
    exact = gradient[0].double() * 3000**0.5
    torch.testing.assert_close(measured.norm, exact, rtol=1e-6, atol=0)
    assert measured.found_inf == 0
    assert torch.isfinite(measured.norms).all()
    torch.testing.assert_close(measured.statistics.max, gradient[0].double(), rtol=1e-12, atol=0)


def test_many_small_numbers_are_not_lost(route):
    """In float32 the sum of 4 million squares of 0.3 is off by a percent where it is taken one by one."""
    view = torch.full((1,), 0.3).expand(4_000_000)  # one number in memory
    parameter = nn.Parameter(torch.zeros(1).expand(4_000_000))
    parameter.grad = view
    exact = torch.tensor(0.3).double() * 4_000_000**0.5
    torch.testing.assert_close(measure([parameter]).norm, exact, rtol=1e-6, atol=0)


def test_a_large_number_does_not_hide_the_small(route):
    gradient = torch.full((1024,), 1e-3)
    gradient[512] = 1e4
    torch.testing.assert_close(measure(with_gradients(gradient)).norm, gradient.double().norm(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("with_statistics", [False, True], ids=["norms", "statistics"])
def test_no_gradients(with_statistics):
    measured = measure([nn.Parameter(torch.ones(3))], statistics=with_statistics)
    assert measured.parameters == measured.gradients == []
    assert (measured.norm, measured.found_inf, len(measured.norms)) == (0, 0, 0)
    if with_statistics:
        assert all(value == 0 for value in vars(measured.statistics).values())


def test_only_empty_tensors(route):
    measured = measure(with_gradients(torch.zeros(0), torch.zeros(0, 3)))
    assert (measured.norm, measured.found_inf, measured.norms.tolist()) == (0, 0, [0, 0])


def test_parameters_without_a_gradient_are_left_out(route):
    first, last = with_gradients(torch.full((4,), 3.0), torch.ones(9))
    measured = measure(iter([first, nn.Parameter(torch.ones(5)), last]))
    assert [id(p) for p in measured.parameters] == [id(first), id(last)]
    assert measured.norms.tolist() == [6.0, 3.0]


@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_what_cannot_be_measured_is_refused(route, kind):
    layer = nn.Embedding(5, 2, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    good = with_gradients(torch.ones(2))
    bad = {
        "sparse": list(layer.parameters()),
        "complex": with_gradients(torch.ones(2, dtype=torch.complex64)),
    }
    with pytest.raises(InputError, match=kind) as refused:
        measure([*good, *bad[kind]])
    assert refused.value.hint


class Forbid(TorchDispatchMode):
    """Raises where the host reads a tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return func(*args, **(kwargs or {}))


def test_the_host_reads_nothing(route):
    parameters = mixture(0)
    with Forbid():
        measured = measure(parameters, statistics=True)
        scale_(measured, 1.0 / measured.norm)


def test_a_device_is_not_waited_for():
    """Whatever read a tensor of the meta device would raise."""
    parameters = with_gradients(*[torch.empty(3, 4, dtype=dtype, device="meta") for dtype in DTYPES])
    measured = measure(parameters, statistics=True)
    scale_(measured, 1.0 / measured.norm)
    assert {value.device.type for value in (measured.norm, measured.found_inf, measured.statistics.std)} == {"meta"}


def test_several_devices():
    """The result is on the accelerator; here on one that has no memory."""
    parameters = with_gradients(torch.ones(3), torch.empty(4, device="meta"))
    measured = measure(parameters, statistics=True)
    assert measured.norm.device.type == measured.norms.device.type == measured.statistics.mean.device.type == "meta"
    assert len(measured.norms) == 2


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.5])
def test_scaling_multiplies_only_below_one(route, factor):
    parameters = mixture(1)
    before = [p.grad.clone() for p in parameters]
    places = [p.grad.data_ptr() for p in parameters]
    scale_(measure(parameters), torch.tensor(factor, dtype=torch.float64))
    for parameter, old in zip(parameters, before, strict=True):
        wide = old.double() if old.dtype is torch.float64 else old.float()
        assert torch.equal(parameter.grad, (wide * min(1.0, factor)).to(old.dtype))
    assert [p.grad.data_ptr() for p in parameters] == places


def test_scaling_leaves_alone_what_is_not_finite(route):
    parameters = with_gradients(torch.tensor([1.0, math.inf]), torch.ones(2))
    scale_(measure(parameters), torch.tensor(0.5))
    assert [p.grad.tolist() for p in parameters] == [[1.0, math.inf], [1.0, 1.0]]


def test_the_result_does_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(native, "ELEMENTS_OF_A_THREAD", 1000)
    parameters, before, norms = mixture(2), torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        norms.append(measure(parameters).norm.item())
    torch.set_num_threads(before)
    assert len(set(norms)) == 1


@pytest.mark.parametrize(
    ("tensor", "is_dense"),
    [
        (torch.zeros(2, 3), True), (torch.zeros(2, 3).t(), True), (torch.zeros(2, 3, 4).permute(2, 0, 1), True),
        (torch.zeros(2, 6)[:, ::2], False), (torch.zeros(1).expand(3), False), (torch.zeros(3, 4)[:, :1], False),
        (torch.zeros(8).as_strided((2, 2, 2), (7, 0, 0)), False),
    ],
    ids=range(7),
)  # fmt: skip
def test_gaps_are_seen(tensor, is_dense):
    assert native.has_no_gaps(tensor) is is_dense


def test_without_a_compiler_one_warning_is_given(monkeypatch):
    monkeypatch.setenv("AVA_CXX", "none")
    monkeypatch.setattr(build, "_TOLD", [])
    for cache in (native.library, build.find_compiler):
        cache.cache_clear()
    with pytest.warns(RuntimeWarning, match="gradient measurements run on plain torch") as told:
        measured = [measure(with_gradients(torch.ones(4))) for _ in range(2)]
    assert len(told) == 1
    assert [one.norm.item() for one in measured] == [2.0, 2.0]
    for cache in (native.library, build.find_compiler):
        cache.cache_clear()
