"""State dicts: every codec's parts come back as they were, torch's moments are compressed, foreign ones refused."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from ava.errors import InputError
from ava.optimization import get_optimizer, list_optimizers
from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.choice import CODECS

# Shapes whose factors, rows or columns have the shape of the parameter itself, by chance, and one for 8 bits.
SHAPES = ((3,), (1,), (), (5, 1), (1, 5), (2, 3, 4), (7919,), (65, 64))
TYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STATES = ["dense", "bf16", "int8", "factored"]
PARTS = {"row": torch.float32, "column": torch.float32, "sign": torch.uint8, "scale": torch.float32}


def parameters(dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def train(optimizer, params, first, last):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = p.detach() + torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()


def through_a_file(state_dict, **options):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True, **options)


def same_state(one, other, params, twins):
    for p, q in zip(params, twins, strict=True):
        assert one.state[p].keys() == other.state[q].keys()
        for key, value in one.state[p].items():
            assert value.dtype is other.state[q][key].dtype, key
            assert torch.equal(value, other.state[q][key]), key


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy_adv"])
def test_parts_keep_their_types(name, dtype, state):
    params, twins = parameters(TYPES[dtype]), parameters(TYPES[dtype])
    optimizer, twin = (get_optimizer(name)(ps, state=state, lr=1e-2) for ps in (params, twins))
    train(optimizer, params, 0, 3)
    for q, p in zip(twins, params, strict=True):
        q.data.copy_(p)
    twin.load_state_dict(through_a_file(optimizer.state_dict()))
    same_state(optimizer, twin, params, twins)
    for p in params:
        for key, value in optimizer.state[p].items():
            part = key.partition(".")[2]
            assert not part or value.dtype is PARTS[part]
    train(optimizer, params, 3, 6)
    train(twin, twins, 3, 6)
    same_state(optimizer, twin, params, twins)
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_keep_compressed_state(state, clone):
    params = parameters()
    optimizer = get_optimizer("adamw")(params, state=state)
    train(optimizer, params, 0, 2)
    twins, twin = clone((params, optimizer))
    same_state(optimizer, twin, params, twins)
    train(optimizer, params, 2, 4)
    train(twin, twins, 2, 4)
    same_state(optimizer, twin, params, twins)


@pytest.mark.parametrize("state", ["bf16", "int8", "factored"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_moments_of_torch_are_compressed(state, dtype):
    """A file of torch.optim does not say how ours are stored: they are as this optimizer was built."""
    params, twins, fresh = (parameters(TYPES[dtype]) for _ in range(3))
    theirs = torch.optim.AdamW(params, lr=1e-2, weight_decay=0.1)
    train(theirs, params, 0, 5)
    ours = get_optimizer("adamw")(twins, state=state)
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    assert ours.param_groups[0]["state"] == state
    for p, q in zip(params, twins, strict=True):
        for slot in (Slot("exp_avg"), Slot("exp_avg_sq", signed=False)):
            is_small = state == "int8" and q.numel() < 4096
            codec = CODECS["dense" if is_small else state]
            assert {key for key in ours.state[q] if key.partition(".")[0] == slot.name} == set(codec.keys(slot))
            value, wanted = codec.decode(ours.state[q], slot, q), theirs.state[p][slot.name]
            assert torch.equal(value == 0, wanted == 0) or state == "int8"
            if state == "factored":
                torch.testing.assert_close(value.abs().sum(), wanted.abs().sum(), rtol=2e-2, atol=0)
            else:
                bound = 2**-8 if state == "bf16" else 2**-5
                torch.testing.assert_close(value, wanted, rtol=bound, atol=1e-3 * wanted.abs().max().item())
        assert ours.state[q]["step"] == 5
        q.data.copy_(p)
    train(ours, twins, 5, 10)
    late = get_optimizer("adamw")(fresh, state=state, lr=1e-2, weight_decay=0.1)
    train(late, fresh, 0, 1)  # state of the same kind as if it had always been compressed
    for q, r in zip(twins, fresh, strict=True):
        assert ours.state[q].keys() == late.state[r].keys()
        assert all(ours.state[q][key].dtype is late.state[r][key].dtype for key in ours.state[q])
        assert q.isfinite().all()


@pytest.mark.parametrize(("wrote", "reads"), [(a, b) for a in STATES for b in STATES if a != b])
def test_a_file_of_ours_says_how_it_is_stored(wrote, reads):
    params, twins = parameters(), parameters()
    optimizer, twin = get_optimizer("adamw")(params, state=wrote), get_optimizer("adamw")(twins, state=reads)
    train(optimizer, params, 0, 3)
    train(twin, twins, 0, 2)
    for q, p in zip(twins, params, strict=True):
        q.data.copy_(p)
    twin.load_state_dict(through_a_file(optimizer.state_dict()))
    assert twin.param_groups[0]["state"] == wrote
    train(optimizer, params, 3, 6)
    train(twin, twins, 3, 6)
    same_state(optimizer, twin, params, twins)


@pytest.mark.parametrize(("wrote", "reads"), [("float64", "float32"), ("float32", "float64"), ("float32", "bfloat16")])
@pytest.mark.parametrize("name", ["adamw", "adafactor", "soap"])
def test_another_precision(name, wrote, reads):
    """Moments follow the parameters' type, rows and columns the type that is computed in."""
    shapes = ((3,), (5, 1), (4, 4), (6, 5))
    params, twins, fresh = (parameters(TYPES[d], shapes) for d in (wrote, reads, reads))
    optimizer, twin, other = (get_optimizer(name)(ps, lr=1e-3) for ps in (params, twins, fresh))
    train(optimizer, params, 0, 3)
    twin.load_state_dict(through_a_file(optimizer.state_dict()))
    train(twin, twins, 3, 5)
    train(other, fresh, 0, 1)
    for q, r in zip(twins, fresh, strict=True):
        assert {k: v.dtype for k, v in twin.state[q].items()} == {k: v.dtype for k, v in other.state[r].items()}
        assert q.isfinite().all()


def damaged(state, key, change):
    params = parameters(shapes=((65, 64), (3, 2)))
    optimizer = get_optimizer("adamw")(params, state=state)
    train(optimizer, params, 0, 2)
    state_dict = optimizer.state_dict()
    state_dict["state"][0][key] = change(state_dict["state"][0][key])
    return state_dict


@pytest.mark.parametrize(
    ("state", "key"),
    [
        ("dense", "exp_avg"), ("bf16", "exp_avg_sq"), ("int8", "exp_avg"), ("int8", "exp_avg_sq.scale"),
        ("factored", "exp_avg.row"), ("factored", "exp_avg_sq.column"), ("factored", "exp_avg.sign"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "change", [lambda x: x[:-1], lambda x: x.new_zeros(()), lambda x: x.new_zeros(1, 1)], ids=["short", "0-dim", "1x1"]
)
def test_parts_of_another_length_are_refused(state, key, change):
    twins = parameters(shapes=((65, 64), (3, 2)))
    twin = get_optimizer("adamw")(twins, state=state)
    with pytest.raises(InputError, match=f"'{key}' of parameter 0 has the shape"):
        twin.load_state_dict(damaged(state, key, change))
    assert not twin.state


@pytest.mark.parametrize("state", STATES)
def test_another_model_is_refused(state):
    params, others = parameters(shapes=((65, 64),)), parameters(shapes=((64, 66),))
    optimizer = get_optimizer("adamw")(params, state=state)
    train(optimizer, params, 0, 1)
    target = get_optimizer("adamw")(others, state=state)
    with pytest.raises(InputError, match="shape"):
        target.load_state_dict(optimizer.state_dict())
    assert not target.state


@pytest.mark.parametrize("state", STATES)
def test_to_another_device(state):
    """The meta device stands for one that is not here: types and shapes arrive there."""
    params = parameters()
    optimizer = get_optimizer("adamw")(params, state=state)
    train(optimizer, params, 0, 2)
    far = [torch.nn.Parameter(p.to("meta")) for p in params]
    twin = get_optimizer("adamw")(far, state=state)
    twin.load_state_dict(through_a_file(optimizer.state_dict()))
    for p, q in zip(params, far, strict=True):
        for key, value in optimizer.state[p].items():
            moved = twin.state[q][key]
            assert (moved.device.type, moved.dtype, moved.shape) == ("meta", value.dtype, value.shape)
    loaded = through_a_file(optimizer.state_dict(), map_location="meta")
    with pytest.raises(NotImplementedError, match="meta"):
        get_optimizer("adamw")(parameters(), state=state).load_state_dict(loaded)


@pytest.mark.parametrize("state", STATES)
def test_state_of_another_type_is_never_walked_over(state):
    """Who edits state may put in what a kernel would misread, or read past the end of."""
    results = []
    for engine in ("auto", "reference"):
        (p,) = params = parameters(shapes=((9000,),))
        optimizer = get_optimizer("adamw")(params, lr=1e-3, state=state, engine=engine)
        train(optimizer, params, 0, 2)
        key = {"factored": "exp_avg.row", "int8": "exp_avg.scale"}.get(state, "exp_avg")
        value = optimizer.state[p][key]
        optimizer.state[p][key] = value.half() if state == "dense" else value.double()
        train(optimizer, params, 2, 4)
        results.append(p)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_rounding_at_random_may_begin_under_way():
    (p,) = params = parameters(torch.bfloat16, shapes=((9000,),))
    optimizer = get_optimizer("lion")(params, lr=1e-3)
    train(optimizer, params, 0, 2)
    optimizer.param_groups[0]["stochastic_rounding"] = True
    train(optimizer, params, 2, 4)
    assert optimizer.state[p]["step"] == 2
    assert p.isfinite().all()


@pytest.mark.parametrize("name", list_optimizers())
def test_a_gathered_state_dict_is_taken_up(name):
    """Torch makes lists of tuples when it gathers one for a file."""
    model, twin = (torch.nn.Linear(4, 3) for _ in range(2))
    optimizer, other = (get_optimizer(name)(m.parameters(), lr=1e-3) for m in (model, twin))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    options = StateDictOptions(full_state_dict=True)
    gathered = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    set_optimizer_state_dict(twin, other, gathered, options=options)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.data.copy_(p)
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(p)
    for each in (optimizer, other):
        each.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
