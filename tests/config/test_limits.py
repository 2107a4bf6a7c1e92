from __future__ import annotations

import time

import pytest
from omegaconf import OmegaConf

from ava.config.interpolation import check_interpolations
from ava.config.limits import MAX_NODES, check_yaml
from ava.errors import InputError


def bomb(levels: int, width: int) -> str:
    return "a0: &a0 [1]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * width)}]\n" for i in range(1, levels + 1)
    )


@pytest.mark.parametrize("text", [bomb(30, 10), "[" * 100_000, "a: &a [*a]", "{a: " * 300 + "1" + "}" * 300])
def test_a_costly_file_is_refused_at_little_cost(text):
    start = time.process_time()

    with pytest.raises(InputError):
        check_yaml(text, "file")

    assert time.process_time() - start < 0.5


def test_aliases_count_what_their_anchors_count():
    per_row = 100
    rows = MAX_NODES // (per_row + 1) - 2
    text = f"a: &a [{','.join(['1'] * per_row)}]\nb: [{','.join(['*a'] * rows)}]\n"
    check_yaml(text, "file")

    with pytest.raises(InputError, match="aliases"):
        check_yaml(text + "c: *a\nd: *a\ne: *a\n", "file")


def test_depth_counts_through_aliases():
    chain = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 150))

    with pytest.raises(InputError, match="deep"):
        check_yaml(chain, "file")


@pytest.mark.parametrize(
    "tree",
    [
        {"a": "${b}", "b": "${a}"},
        {"a": {"b": "${a}"}},
        {"a": "${.a}"},
        {"a": "x${a}"},
        {"a": "${oc.create:'x'}"},
        {"a": "${oc.select:b}", "b": 1},
        {"a": "${oc.decode:'\\${b}'}", "b": 1},
        {"a": "${hydra:run.dir}"},
        {"a": "${b.${c}}", "b": {"x": 1}, "c": "x"},
        {f"a{i}": f"${{a{i + 1}}}" * 4 for i in range(40)} | {"a40": "x"},
        {
            "a": [f"${{b[{i}]}}" * 9 for i in range(9)],
            "b": [f"${{c.{i}}}" * 900 for i in range(9)],
            "c": ["x" * 900] * 9,
        },
    ],
)
def test_costly_interpolations_are_refused_without_being_resolved(tree):
    start = time.process_time()

    with pytest.raises(InputError):
        check_interpolations(tree)

    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    "tree",
    [
        {"a": "${b.c}", "b": {"c": "${.d}", "d": "${..e}"}, "e": 3},
        {"a": "${b[0]}-${b.1}", "b": [1, 2]},
        {"a": "${oc.env:HOME,/root}/x", "b": "${oc.decode:${oc.env:SEED,3}}"},
        {"a": "${b}", "b": {"c": [1, 2, {"d": None}]}},
    ],
)
def test_ordinary_interpolations_pass_and_resolve(tree):
    check_interpolations(tree)

    OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
