"""Which layers are converted."""

import pytest
import torch
from torch import nn

from ava import registry
from ava.data.source import TokenSpec
from ava.errors import InputError
from ava.optimization.precision.float8.filter import select, too_small
from ava.optimization.precision.float8.training import prepare_float8
from tests.optimization.precision.float8.trainings import CPU


class Blocks(nn.Module):
    """The parts that models are made of."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, 64)
        self.blocks = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(64, 256), "down": nn.Linear(256, 64),
                                                   "output": nn.Linear(64, 64)}) for _ in range(2))  # fmt: skip
        self.odd = nn.Linear(64, 40)
        self.attention = nn.MultiheadAttention(64, 2)
        self.lm_head = nn.Linear(64, 256, bias=False)


EVERY = ["blocks.0.up", "blocks.0.down", "blocks.0.output", "blocks.1.up", "blocks.1.down", "blocks.1.output"]


def test_each_layer_is_converted_or_has_its_reason():
    found = select(Blocks(), "tensorwise", emulate=True)
    assert found.converted == EVERY
    assert found.skipped.keys() == {"odd", "attention.out_proj", "lm_head"}
    assert "not multiples of 16 (40 x 64)" in found.skipped["odd"]
    assert "MultiheadAttention" in found.skipped["attention.out_proj"]
    assert "output layer" in found.skipped["lm_head"]


def test_globs_overrule_and_exclude_is_the_stronger():
    found = select(Blocks(), "tensorwise", include=("lm_head", "blocks.0.*"), exclude=("*.down",), emulate=False)
    assert found.converted == ["blocks.0.up", "blocks.0.output", "lm_head"]
    assert found.skipped["blocks.0.down"] == "excluded"
    assert "too small" in found.skipped["blocks.1.up"]


def test_both_lists_are_told_with_blocks_in_one():
    told = prepare_float8(Blocks(), device=CPU, recipe="delayed", emulate=True, exclude=("blocks.1.down",)).sentences()
    assert told[1] == "FP8 layers (5): blocks.*.up, blocks.0.down, blocks.*.output."
    assert told[2].startswith("Not in FP8 (4): blocks.1.down (excluded); odd (has sizes")
    assert told[2].endswith("lm_head (is the output layer).")


@pytest.mark.parametrize(
    ("n", "k", "tensorwise", "rowwise"),
    [
        (1024, 4096, False, False), (1040, 4096, True, False), (1024, 4112, True, False), (2048, 8192, True, False),
        (2064, 2048, True, False), (4112, 1040, True, True), (4112, 1024, True, False), (4096, 2064, True, True),
        (4096, 2048, True, False),
    ],
)  # fmt: skip
def test_sizes_that_gain(n, k, tensorwise, rowwise):
    with torch.device("meta"):
        linear = nn.Linear(k, n)
    gains = [too_small(linear, recipe) is None for recipe in ("tensorwise", "delayed", "rowwise", "rowwise_with_gw_hp")]
    assert gains == [tensorwise, tensorwise, rowwise, rowwise]


def test_the_sizes_are_torchaos():
    linear_utils = pytest.importorskip("torchao.float8.float8_linear_utils")
    sizes = [1024, 1040, 2048, 2064, 4096, 4112]
    with torch.device("meta"):
        linears = [nn.Linear(k, n) for n in sizes for k in sizes]
    for recipe in ("tensorwise", "rowwise"):
        wanted = linear_utils._auto_filter_for_recipe(recipe, [])
        assert [too_small(one, recipe) is None for one in linears] == [wanted(one, "") for one in linears]


@pytest.mark.parametrize(
    ("make", "skipped"),
    [
        (lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)), {"2": "output layer"}),
        (lambda: registry.model["gpt"].load()(TokenSpec(256, 16)), {"head": "shares its weight"}),
        (lambda: registry.model["gpt"].load()(TokenSpec(256, 16), tied_embeddings=False), {"head": "output layer"}),
        (lambda: nn.ModuleDict({"e": nn.Embedding(48, 16), "a": nn.Linear(16, 48), "b": nn.Linear(16, 48)}),
         {"b": "over the vocabulary"}),
    ],
    ids=["sequential", "tied", "named", "vocabulary"],
)  # fmt: skip
def test_the_output_layer_is_found(make, skipped):
    found = select(make(), "tensorwise", emulate=True)
    assert found.skipped.keys() == skipped.keys()
    assert all(part in found.skipped[name] for name, part in skipped.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ("odd",)}, r"precision.include=odd: `odd` cannot be converted: it has sizes.*\(40 x 64\)"),
        ({"include": ("blocks.0.upp",)}, "Did you mean `blocks.0.up`"),
        ({"exclude": ("nothing*",)}, "precision.exclude=nothing.*There are: `blocks.0.up"),
        ({"exclude": ("*",)}, "no linear layer would compute in FP8: .*excluded.*precision=bf16"),
        ({"emulate": False}, "`blocks.0.up` is too small to gain.*precision.include"),
    ],
    ids=["unaligned", "typo", "no-match", "all-excluded", "all-small"],
)
def test_a_choice_that_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        select(Blocks(), "tensorwise", **({"emulate": True} | options))


def test_a_layer_of_another_class_is_left():
    class Own(nn.Linear):
        pass

    found = select(nn.ModuleDict({"a": Own(16, 16), "b": nn.Linear(16, 16)}), "delayed", emulate=True)
    assert found.converted == ["b"]
    assert found.skipped == {"a": "is a Own, whose forward pass is its own"}


def test_layers_that_are_written_the_other_way_round_are_named():
    class Conv1D(nn.Module):
        pass

    with pytest.raises(InputError, match=r"the 2 Conv1D of the model are no nn\.Linear.*Put nn\.Linear in the place"):
        select(nn.Sequential(nn.Embedding(8, 4), Conv1D(), Conv1D()), "tensorwise", emulate=True)
