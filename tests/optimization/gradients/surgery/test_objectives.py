"""What a method answers, whoever wrote it."""

import functools

import pytest
import torch

from ava.errors import InputError
from ava.optimization.gradients.surgery.objectives import Objectives, ask, name_of

OBJECTIVES = Objectives(torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize(
    "answer", [[1.0, 2.0], (1, 2), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0], requires_grad=True)],
    ids=["list", "tuple", "float32", "graph"],
)  # fmt: skip
def test_numbers_of_any_kind_are_weights(answer):
    weights = ask(lambda objectives: answer, OBJECTIVES, 2)
    assert weights.dtype == torch.float64
    assert not weights.requires_grad
    assert weights.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [(torch.ones(3), r"each of 2 objectives, and gave \(3,\)"), (1.0, r"gave \(\)"), (None, "no numbers: NoneType")],
    ids=["three", "one", "none"],
)
def test_anything_else_is_refused_by_the_methods_name(answer, message):
    def wild(objectives, /, power=1.0):
        return answer

    with pytest.raises(InputError, match=f"'wild'.*{message}"):
        ask(functools.partial(wild, power=2.0), OBJECTIVES, 2)


class Calling:
    def __call__(self, objectives):
        return [1.0]


def test_an_objects_name_is_its_class():
    assert name_of(Calling()) == "Calling"
