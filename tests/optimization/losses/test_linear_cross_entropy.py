"""Cross-entropy by chunks against cross-entropy of all logits: the loss, its gradients, and what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from ava.optimization.losses.linear_cross_entropy import linear_cross_entropy

N, C, V = 13, 6, 17


def problem(dtype=torch.float32, n=N, ignored=(2, 5), with_bias=False):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    targets = torch.randint(0, V, (n,), generator=generator)
    for row in ignored:
        targets[row] = -100
    return normal(n, C), normal(V, C), normal(V) if with_bias else None, targets


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, [tensor for tensor in tensors if tensor is not None])


@pytest.mark.parametrize("chunk", [1, 4, 5, 13, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_it_is_cross_entropy_of_the_linear_layer(chunk, smoothing, reduction):
    hidden, weight, bias, targets = problem(torch.float64, with_bias=True)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    mine = linear_cross_entropy(hidden, weight, targets, bias=bias, chunk=chunk, **options)
    plain = cross_entropy(linear(hidden, weight, bias), targets, **options)
    torch.testing.assert_close(mine, plain, rtol=1e-12, atol=1e-12)
    inputs = (hidden, weight, bias)
    for got, expected in zip(gradients(mine * 3, *inputs), gradients(plain * 3, *inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradcheck(smoothing):
    hidden, weight, bias, targets = problem(torch.float64, with_bias=True)

    def loss(*inputs):
        return linear_cross_entropy(*inputs[:2], targets, bias=inputs[2], chunk=4, label_smoothing=smoothing)

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


@pytest.mark.parametrize("n", [0, 3], ids=["no rows", "all ignored"])
def test_nothing_to_count_is_a_loss_of_zero_with_gradients_of_zero(n):
    hidden, weight, _, targets = problem(n=n, ignored=range(n))
    loss = linear_cross_entropy(hidden, weight, targets, chunk=2)
    by_hidden, by_weight = gradients(loss, hidden, weight)
    assert loss.item() == 0
    assert by_hidden.shape == hidden.shape
    assert not by_hidden.any()
    assert not by_weight.any()


def test_logits_of_any_size_stay_finite():
    hidden, weight, _, targets = problem()
    scaled = (hidden.detach() * 1e4).requires_grad_()
    loss = linear_cross_entropy(scaled, weight, targets, chunk=5)
    torch.testing.assert_close(loss, cross_entropy(linear(scaled, weight), targets, reduction="sum"))
    assert all(torch.isfinite(g).all() for g in gradients(loss, scaled, weight))


def test_another_target_may_be_ignored():
    hidden, weight, _, targets = problem(ignored=())
    ignored = int(targets[0])
    mine = linear_cross_entropy(hidden, weight, targets, ignore_index=ignored, chunk=4)
    torch.testing.assert_close(
        mine, cross_entropy(linear(hidden, weight), targets, ignore_index=ignored, reduction="sum")
    )


def test_a_tied_weight_gets_both_gradients():
    tokens = torch.arange(9) % V
    targets = tokens.roll(-1)

    def by_weight(head):
        weight = torch.randn(V, C, generator=torch.Generator().manual_seed(1)).requires_grad_()
        return gradients(head(weight[tokens].tanh(), weight), weight)[0]

    mine = by_weight(lambda hidden, weight: linear_cross_entropy(hidden, weight, targets, chunk=4))
    plain = by_weight(lambda hidden, weight: cross_entropy(linear(hidden, weight), targets, reduction="sum"))
    torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)], ids=["bf16", "fp16"])
def test_under_autocast_products_have_its_type_and_sums_float32(dtype, rtol):
    hidden, weight, _, targets = problem()
    with torch.autocast("cpu", dtype=dtype):
        mine = linear_cross_entropy(hidden, weight, targets, chunk=5)
        plain = cross_entropy(linear(hidden, weight).float(), targets, reduction="sum")
    assert mine.dtype == torch.float32
    torch.testing.assert_close(mine, plain, rtol=1e-6, atol=1e-6)
    exact = linear_cross_entropy(hidden.double(), weight.double(), targets)
    for got, expected in zip(gradients(mine, hidden, weight), gradients(exact, hidden, weight), strict=True):
        assert got.dtype == torch.float32
        assert (got - expected).norm() < rtol * expected.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_gradients_have_the_type_of_what_they_are_of(dtype):
    hidden, weight, bias, targets = problem(dtype, with_bias=True)
    loss = linear_cross_entropy(hidden, weight, targets, bias=bias)
    assert loss.dtype == torch.float32
    assert [g.dtype for g in gradients(loss, hidden, weight, bias)] == [dtype] * 3


def test_fp16_loses_no_small_gradient_before_the_loss_scale():
    """With 4,096 words each probability is small, and a hundred-millionth of the weights smaller than any fp16."""
    hidden = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).half()
    weight = (torch.randn(4096, 8, generator=torch.Generator().manual_seed(1)) * 1e-4).half().requires_grad_()
    targets = torch.tensor([0, 1, 2, 3])
    loss = linear_cross_entropy(hidden, weight, targets)
    (scaled,) = torch.autograd.grad(loss, weight, torch.tensor(1024.0))
    expected = torch.softmax(hidden.float() @ weight.detach().float().T, 1)
    expected[range(4), targets] -= 1
    assert (scaled[4:] != 0).float().mean() > 0.999
    torch.testing.assert_close(scaled.float(), 1024 * expected.T @ hidden.float(), rtol=2e-3, atol=1e-5)


def test_evaluation_keeps_nothing():
    hidden, weight, _, targets = problem()
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets, chunk=4)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, linear_cross_entropy(hidden, weight, targets).detach())


@pytest.mark.parametrize("which", [0, 1], ids=["hidden", "weight"])
def test_only_what_is_asked_for_gets_a_gradient(which):
    hidden, weight, _, targets = problem()
    frozen = [hidden, weight]
    frozen[1 - which] = frozen[1 - which].detach()
    loss = linear_cross_entropy(*frozen, targets, chunk=4)
    plain = cross_entropy(linear(*frozen), targets, reduction="sum")
    torch.testing.assert_close(gradients(loss, frozen[which]), gradients(plain, frozen[which]))


def test_the_backward_pass_can_be_repeated():
    hidden, weight, _, targets = problem()
    loss = linear_cross_entropy(hidden, weight, targets)
    first = torch.autograd.grad(loss, weight, torch.tensor(2.0), retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, weight)[0] * 2, first)


def test_a_second_derivative_is_refused_with_the_remedy():
    hidden, weight, _, targets = problem()
    loss = linear_cross_entropy(hidden, weight, targets)
    # torch warns that create_graph with backward leaks; grad does not
    with pytest.raises(RuntimeError, match=r"no second derivative.*task\.chunked_loss=0"):
        torch.autograd.grad(loss, weight, create_graph=True)


@pytest.mark.slow
def test_compiled_it_is_the_same():
    hidden, weight, bias, targets = problem(with_bias=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(linear_cross_entropy, fullgraph=True)
        mine = compiled(hidden, weight, targets, bias=bias, chunk=5)
        by_mine = gradients(mine, hidden, weight, bias)
    plain = cross_entropy(linear(hidden, weight, bias), targets, reduction="sum")
    torch.testing.assert_close(mine, plain)
    for got, expected in zip(by_mine, gradients(plain, hidden, weight, bias), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.zeros(3, dtype=torch.int64)}, r"not \(13, 6\), \(17, 6\), \(3,\)"),
        ({"weight": torch.zeros(17, 5)}, r"\(17, 5\)"),
        ({"chunk": 0}, "chunk=0 must be a number of rows"),
        ({"chunk": 2.0}, r"chunk=2\.0 must be a number of rows"),
        ({"bias": torch.zeros(1)}, r"bias must be \(17,\).*not \(1,\)"),
        ({"bias": torch.zeros(1, 17)}, r"bias must be \(17,\).*not \(1, 17\)"),
        ({"targets": torch.zeros(13, dtype=torch.int32)}, r"int64, not torch\.int32"),
        ({"targets": torch.full((13,), 17)}, r"in \[0, 17\).*one is 17"),
        ({"targets": torch.full((13,), -1)}, r"ignore_index=-100; one is -1"),
        ({"label_smoothing": 2.0}, "must be in"),
    ],
    ids=[
        "targets",
        "weight",
        "chunk",
        "fractional chunk",
        "short bias",
        "matrix bias",
        "type of targets",
        "large target",
        "negative target",
        "smoothing",
    ],
)
def test_refused(change, message):
    hidden, weight, _, targets = problem()
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**{"hidden": hidden, "weight": weight, "targets": targets, **change})


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        linear_cross_entropy(torch.ones(2, 3), torch.ones(4, 3), torch.zeros(2, dtype=torch.int64), reduction="none")
