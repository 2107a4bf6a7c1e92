"""What every clipping keeps to; the registry names them, so a new one is tested by being there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ava import registry
from ava.errors import InputError
from ava.optimization import get_clip, list_clips
from ava.optimization.gradients.clip.clipping import bind

REMEMBER = ["percentile", "zscore"]
FACTOR = ["norm", "percentile", "zscore"]
"""Those that scale all gradients together."""


def parameters_with(scale, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter(0.1 * torch.randn(s, generator=generator)) for s in ((3, 2), (4,), (2, 3, 2, 2), ())]
    params.append(torch.nn.Parameter(torch.zeros(2)))
    for p in params[:4]:
        p.grad = scale * torch.randn(p.shape, generator=generator)
    return params


def gradients(params):
    return [p.grad.clone() for p in params if p.grad is not None]


def norm_of(params):
    return torch.cat([g.flatten() for g in gradients(params)]).norm()


def run(clip, scales):
    """Clip once for every scale; the gradients that came out."""
    clipped = []
    for seed, scale in enumerate(scales):
        params = parameters_with(scale, seed)
        clip(params)
        clipped.append(torch.cat([g.flatten() for g in gradients(params)]))
    return torch.stack(clipped)


class NothingRead(TorchDispatchMode):
    """Fails where a value leaves the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero), func
        return func(*args, **(kwargs or {}))


SPIKY = [*[1.0 + 0.01 * i for i in range(30)], 50.0, 1.0, 1e-3]


@pytest.mark.parametrize("name", list_clips())
def test_returns_the_norm_before(name):
    params = parameters_with(10.0)
    expected = norm_of(params)
    returned = get_clip(name)(params)
    assert returned.dim() == 0
    torch.testing.assert_close(returned, expected, check_dtype=False)


@pytest.mark.parametrize("name", list_clips())
def test_without_gradients_the_norm_is_zero(name):
    assert get_clip(name)([torch.nn.Parameter(torch.zeros(2))]) == 0


@pytest.mark.parametrize("name", list_clips())
def test_nothing_is_read(name):
    clip = get_clip(name)
    with NothingRead():
        run(clip, [1.0, 2.0, 0.5])


def test_reading_would_be_noticed():
    with pytest.raises(AssertionError), NothingRead():
        torch.ones(()).item()


@pytest.mark.parametrize("name", list_clips())
def test_no_element_grows_or_turns(name):
    clip = get_clip(name)
    for seed, scale in enumerate(SPIKY):
        params = parameters_with(scale, seed)
        before = gradients(params)
        clip(params)
        for was, now in zip(before, gradients(params), strict=True):
            assert (now.abs() <= was.abs()).all()
            assert (now * was >= 0).all()


@pytest.mark.parametrize("name", FACTOR)
def test_scaling_together_keeps_the_direction(name):
    clip = get_clip(name)
    for seed, scale in enumerate(SPIKY):
        params = parameters_with(scale, seed)
        before = torch.cat([g.flatten() for g in gradients(params)])
        clip(params)
        after = torch.cat([g.flatten() for g in gradients(params)])
        torch.testing.assert_close(after / after.norm(), before / before.norm())


@pytest.mark.parametrize("name", ["adaptive", "norm", "per_parameter", "value"])
def test_clipping_twice_changes_nothing_more(name):
    params = parameters_with(10.0)
    get_clip(name)(params)
    once = gradients(params)
    get_clip(name)(params)
    for a, b in zip(gradients(params), once, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", REMEMBER)
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_what_is_learned_from_norms_does_not_depend_on_their_unit(name, unit):
    plain, scaled = run(get_clip(name), SPIKY), run(get_clip(name), [unit * s for s in SPIKY])
    torch.testing.assert_close(scaled / unit, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", list_clips())
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=["nan", "inf", "minus_inf"])
def test_what_is_not_finite_raises_nothing_and_is_not_remembered(name, bad):
    clip, untouched = get_clip(name), get_clip(name)
    run(clip, SPIKY), run(untouched, SPIKY)
    params = parameters_with(1.0)
    params[1].grad[2] = bad
    assert not torch.isfinite(clip(params))
    for key, value in untouched.state_dict().items():
        assert torch.equal(clip.state_dict()[key], value), key
    assert torch.equal(run(clip, SPIKY), run(untouched, SPIKY))


@pytest.mark.parametrize("name", list_clips())
def test_only_those_that_remember_have_a_state(name):
    state = get_clip(name).state_dict()
    assert bool(state) == (name in REMEMBER)
    assert all(type(value) is torch.Tensor for value in state.values())


@pytest.mark.parametrize("name", REMEMBER)
def test_a_resumed_clip_continues_bit_for_bit(name, tmp_path):
    through = get_clip(name)
    run(through, SPIKY)
    torch.save(through.state_dict(), tmp_path / "clip.pt")
    resumed = get_clip(name)
    resumed.load_state_dict(torch.load(tmp_path / "clip.pt", weights_only=True))
    later = [1.5, 30.0, 0.7, 1.0]
    assert torch.equal(run(through, later), run(resumed, later))


@pytest.mark.parametrize("name", REMEMBER)
def test_a_saved_state_stays_as_it_was(name):
    clip = get_clip(name)
    run(clip, SPIKY)
    state = clip.state_dict()
    kept = copy.deepcopy(state)
    run(clip, SPIKY)
    assert all(torch.equal(state[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", list_clips())
def test_the_clip_alone_is_what_the_trainer_calls(name):
    """`bind` gives (measured) -> factor or None; carried out, it is what `get_clip` does."""
    from ava.optimization.gradients.health.measure import measure

    by_hand, params = parameters_with(10.0), parameters_with(10.0)
    factor = bind(name)(measure(by_hand))
    get_clip(name)(params)
    if factor is not None:
        assert factor.dim() == 0
        assert factor <= 1
        for p in by_hand[:4]:
            p.grad.mul_(factor)
    for a, b in zip(gradients(by_hand), gradients(params), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [n for n in list_clips() if n not in REMEMBER])
def test_options_may_come_with_the_call_where_nothing_is_remembered(name):
    options = {"clip_norm": 0.02} if "clip_norm" in registry.clip[name].parameters else {}
    once, bound = parameters_with(3.0), parameters_with(3.0)
    get_clip(name)(once, **options)
    get_clip(name, **options)(bound)
    assert all(torch.equal(a, b) for a, b in zip(gradients(once), gradients(bound), strict=True))


REFUSED = {
    "late": (lambda p: get_clip("zscore")(p, clip_norm=2.0), "get_clip('zscore', clip_norm=2.0)"),
    "unknown": (lambda p: get_clip("norm")(p, clip_nrm=2.0), "Did you mean `clip_norm`?"),
    "negative": (lambda _: get_clip("norm", clip_norm=-1.0), "above 0"),
    "beyond": (lambda _: get_clip("percentile", clip_norm=101.0), "at most 100"),
    "no_option": (lambda _: get_clip("none", clip_norm=1.0), "it has: none"),
    "no_memory": (lambda _: get_clip("none").load_state_dict({"mean": 1}), "remembers nothing"),
    "other_memory": (lambda _: get_clip("zscore").load_state_dict(get_clip("percentile").state_dict()), "variance"),
    "other_history": (
        lambda _: get_clip("percentile").load_state_dict(get_clip("percentile", history=5).state_dict()), "(5,)"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(InputError) as raised:
        call(parameters_with(1.0))
    assert says in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_norm_has_the_type_that_torch_gives(dtype):
    parameter = torch.nn.Parameter(torch.zeros(3, dtype=dtype))
    parameter.grad = torch.full_like(parameter, 2.0)
    norm = get_clip("none")([parameter])
    assert norm.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    parameter.grad = torch.full_like(parameter, 3e38)
    assert get_clip("none")([parameter]).isfinite()


def test_a_model_stands_for_its_parameters():
    model = torch.nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    assert get_clip("norm")(model, clip_norm=0.1) > 0.1
    assert torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]) <= 0.1
