"""The section `recovery`: what is refused, and why."""

import pytest

from ava.config.compose import compose
from ava.errors import InputError


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["recovery.budget=3"], ("recovery.budget=3", "belongs to recovery=ladder", "recovery=off", "leave it out")),
        (["recovery=skip", "recovery.budget=3"], ("recovery.budget=3", "changes nothing with recovery=skip")),
        (["recovery=skip", "recovery.snapshot_device=cpu"], ("recovery.snapshot_device=cpu", "recovery=ladder")),
        (["recovery.sigmas=4"], ("recovery.sigmas=4", "belongs to recovery=skip", "recovery=off")),
        (["recovery.detectors=[explosion]"], ("recovery.detectors=[explosion]", "recovery=off")),
        (["recovery=skip", "recovery.detectors=[explosoin]"], ("recovery.detectors=explosoin", "`explosion`")),
        (["recovery=ladder", "recovery.detectors=[explosion,explosion]"], ("recovery.detectors=explosion", "twice")),
        (["recovery=ladder", "recovery.detectors=[]"], ("recovery.detectors=[]", "nothing would be detected")),
        (["recovery=ladder", "optimizer.fused_backward=true", "clip=none"], ("recovery=ladder", "fused_backward")),
        (["recovery=skip", "health.max_consecutive=3"], ("health.max_consecutive=3", "counts nothing")),
        (["recovery=skip", "health.on_nonfinite=rollback"], ("health.on_nonfinite=rollback", "recovery=skip")),
        (
            ["recovery=ladder", "recovery.snapshot_every=5", "recovery.snapshot_cost=0.02"],
            ("recovery.snapshot_cost=0.02", "recovery.snapshot_every=5"),
        ),
        (["recovery=ladder", "recovery.early=1"], ("recovery.early=1",)),
        (["recovery=ladder", "recovery.budget=0"], ("recovery.budget=0",)),
        (["recovery.name=ladr"], ("recovery",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(overrides, words):
    with pytest.raises(InputError) as caught:
        compose(overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["off", "skip", "ladder"])
def test_what_is_as_it_stands_is_no_option(name):
    """The defaults may be said."""
    said = ["recovery.budget=8", "recovery.sigmas=5.0", "recovery.snapshot_every=null", "recovery.detectors=null"]
    assert compose([f"recovery={name}", *said]).recovery.name == name


@pytest.mark.parametrize("answer", ["skip", "raise"])
@pytest.mark.parametrize("name", ["skip", "ladder"])
def test_recovery_takes_over_what_is_not_finite(name, answer):
    assert compose([f"recovery={name}", f"health.on_nonfinite={answer}"]).health.on_nonfinite == answer
