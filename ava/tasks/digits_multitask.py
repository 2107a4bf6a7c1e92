"""The example of several objectives at once: four questions about a picture of two digits; always there.

    left, right       which digit lies on the upper left, which on the lower right: cross-entropy in nats
    turn              by which of five angles the picture was turned: cross-entropy in nats
    reconstruction    the picture before it was turned and noise was laid over it: 10 times its relative squared error

The conflict is real: a multi-layer perceptron of width 32 names the upper left digit of 78 % of the pictures, and the
lower right one of 79 %, when that is all it learns, and each of 61 % when it learns all four (`ava bench multitask`).
"""

from __future__ import annotations

from ava.data.digit_pairs import NUM_TURNS
from ava.data.source import Data, ImageSpec
from ava.registry import PositiveFloat, task
from ava.tasks.multitask import Classes, MultiTask, Objective, Picture, with_heads
from ava.tasks.task import Task, spec_of

NUM_DIGITS = 10
_REMEDY = "Use data=digit_pairs."


@task(kind="images")
def digits_multitask(
    data: Data,
    /,
    left_weight: PositiveFloat = 1.0,
    right_weight: PositiveFloat = 1.0,
    turn_weight: PositiveFloat = 1.0,
    reconstruction_weight: PositiveFloat = 1.0,
) -> Task:
    """Four objectives that conflict, for surgery=NAME: two digits in a picture, its turn, and the picture restored.

    Args:
        data: pictures of two digits (data=digit_pairs).
        left_weight: factor of the loss of the upper left digit.
        right_weight: factor of the loss of the lower right digit.
        turn_weight: factor of the loss of the angle by which the picture was turned.
        reconstruction_weight: factor of the loss of the picture restored.
    Returns:
        The task; its model gets a head for each objective.
    Raises:
        InputError: the data are no pictures of two digits.
    """
    weights = {
        "left": left_weight,
        "right": right_weight,
        "turn": turn_weight,
        "reconstruction": reconstruction_weight,
    }
    objectives = _objectives(spec_of(data, ImageSpec, _REMEDY))
    return MultiTask(with_heads(data, objectives, _REMEDY), objectives, weights)


def _objectives(spec: ImageSpec) -> dict[str, Objective]:
    return {
        "left": Classes(NUM_DIGITS, "targets"),
        "right": Classes(NUM_DIGITS, "right"),
        "turn": Classes(NUM_TURNS, "turn"),
        "reconstruction": Picture(spec.channels * spec.height * spec.width, "clean"),
    }
