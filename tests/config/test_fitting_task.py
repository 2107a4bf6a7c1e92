"""Who names only data gets the task that is made for it."""

import pytest

from ava.config.compose import compose
from ava.errors import InputError


@pytest.mark.parametrize(
    ("overrides", "task", "model"),
    [
        (["data=digits"], "digits", "convnet"),
        (["data=stdlib"], "language_model", "gpt"),
        (["data=text", "path=some.txt"], "language_model", "gpt"),
        (["data=images", "path=folder", "model=resnet"], "classification", "resnet"),
        (["data=stdlib", "experiment=gpt_stdlib"], "stdlib_lm", "gpt"),
        (["data=text", "task=stdlib_lm"], "stdlib_lm", "gpt"),
    ],
)
def test_task_fits_the_data(overrides, task, model):
    config = compose(overrides)
    assert (config.task.name, config.model.name) == (task, model)


def test_a_task_that_was_named_stays():
    with pytest.raises(InputError, match="data=text: is for tokens, but task=digits is about images"):
        compose(["data=text", "task=digits"])
