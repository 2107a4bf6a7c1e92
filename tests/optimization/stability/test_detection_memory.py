"""What the detector remembers, and that floats and tensors say the same."""

from __future__ import annotations

import copy
import math
import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ava.errors import InputError
from ava.optimization import HindranceDetector
from ava.optimization.optimizers.arithmetic import where
from ava.registry import detector as register

from .series import training


def tensors() -> HindranceDetector:
    """A detector that computes with 0-dim tensors, as on an accelerator."""
    detector = HindranceDetector()
    detector._memory.always_tensors = True
    return detector


def faulty(steps: int, seed: int):
    """A training with all kinds of faults: what was told, gradient norm, loss, update norm."""
    generator = random.Random(1000 + seed)
    lasting = 1.0
    for step, (norm, loss) in enumerate(training(steps, seed)):
        kind = generator.random()
        lasting = generator.choice([1.0, 1.0, 2.0, 5.0]) if generator.random() < 0.02 else lasting
        fault = generator.choice([math.nan, math.inf, 1e30, 0.0, 30.0, 4.0, 1e-6]) if kind < 0.08 else 1.0
        told = {"lr": 1e-3 * (1 if step < 80 else 5), "phase": "warmup" if step < 40 else "main",
                "batch_size": 64 if step % 20 else 8}  # fmt: skip
        known = loss * lasting * (fault if kind < 0.04 else 1) if kind < 0.97 else None
        yield told, norm * fault, known, 0.01 * norm * (fault if kind < 0.06 else 1)


def say(detector: HindranceDetector, told, norm, loss, update) -> list[float]:
    detector.tell(**told)
    numbers = detector.judge(norm, loss).numbers()
    return [float(value) for value in numbers.values()] + [float(detector.judge_update(update))]


@pytest.mark.parametrize("seed", range(4))
def test_tensors_say_what_floats_say(seed):
    floats, others = HindranceDetector(), tensors()
    for step, seen in enumerate(faulty(250, seed)):
        told, *numbers = seen
        expected = say(floats, told, *numbers)
        given = [None if x is None else torch.tensor(x, dtype=torch.float64) for x in numbers]
        torch.testing.assert_close(say(others, told, *given), expected, rtol=1e-9, atol=1e-9, equal_nan=True,
                                   msg=lambda text, at=step: f"step {at}: {text}")  # fmt: skip
        torch.testing.assert_close(others.memory, floats.memory, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_float32_is_enough(seed):
    """A device without float64: everything stays finite, and the same steps are left out."""
    wide, narrow = tensors(), tensors()
    narrow._memory.tensor = narrow.memory.float()
    for told, norm, loss, update in faulty(150, seed):
        ours, theirs = say(wide, told, norm, loss, update), say(narrow, told, norm, loss, update)
        assert torch.isfinite(narrow.memory).all()
        skip = list(wide.judge(1.0).numbers()).index("skip")
        narrow.judge(1.0)
        assert ours[skip] == theirs[skip]


class NothingIsRead(TorchDispatchMode):
    """Refuses what would make the host wait for an accelerator."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._opname not in {"_local_scalar_dense", "is_nonzero", "item"}, func
        return func(*args, **(kwargs or {}))


def test_tensors_are_not_read():
    detector = tensors()
    with NothingIsRead():
        for told, norm, loss, update in faulty(30, 0):
            detector.tell(**told)
            verdict = detector.judge(torch.tensor(norm), None if loss is None else torch.tensor(loss))
            factor = detector.judge_update(torch.tensor(update))
            assert all(isinstance(x, torch.Tensor) and x.dim() == 0 for x in (verdict.skip, verdict.hindrance, factor))


def test_verdict_does_not_change_with_later_steps():
    detector = tensors()
    steps = list(faulty(60, 1))
    for told, norm, loss, _ in steps[:30]:
        detector.tell(**told)
        verdict = detector.judge(torch.tensor(norm), loss)
    before = {name: float(value) for name, value in verdict.numbers().items()}
    for told, norm, loss, _ in steps[30:]:
        detector.tell(**told)
        detector.judge(torch.tensor(norm), loss)
    after = {name: float(value) for name, value in verdict.numbers().items()}
    assert str(before) == str(after)


@pytest.mark.parametrize("make", [HindranceDetector, tensors], ids=["floats", "tensors"])
@pytest.mark.parametrize("at", [1, 7, 60, 104])
def test_state_goes_on_bit_for_bit(make, at):
    steps = [(told, n, x, u) for told, n, x, u in faulty(150, 2)]
    # At step 104 an alarm is on.
    steps[100:106] = [(told, n, 50.0, u) for told, n, _, u in steps[100:106]]
    one = make()
    for seen in steps[:at]:
        say(one, *seen)
    state = copy.deepcopy(one.state_dict())
    tail = [say(one, *seen) for seen in steps[at:]]
    other = make()
    other.load_state_dict(state)
    assert str([say(other, *seen) for seen in steps[at:]]) == str(tail)
    assert torch.equal(one.memory, other.memory)


def test_memory_is_changed_in_place_and_can_be_put_back():
    detector = HindranceDetector()
    memory, steps = detector.memory, list(faulty(80, 3))
    for seen in steps[:50]:
        say(detector, *seen)
    assert detector.memory is memory
    assert memory.dim() == 1
    assert memory.dtype is torch.float64
    kept = memory.clone()
    once = [say(detector, *seen) for seen in steps[50:]]
    memory.copy_(kept)
    assert str([say(detector, *seen) for seen in steps[50:]]) == str(once)
    detector.memory = kept.clone()
    assert str([say(detector, *seen) for seen in steps[50:]]) == str(once)
    with pytest.raises(InputError, match="numbers"):
        detector.memory = kept[:-1]


def test_restart_forgets_everything():
    detector = HindranceDetector()
    fresh = detector.memory.clone()
    for seen in faulty(50, 0):
        say(detector, *seen)
    assert not torch.equal(detector.memory, fresh)
    detector.restart()
    assert torch.equal(detector.memory, fresh)


def test_state_of_other_detectors_is_refused():
    state = HindranceDetector(detectors=["nonfinite", "vanishing"]).state_dict()
    with pytest.raises(InputError, match="other detectors"):
        HindranceDetector().load_state_dict(state)
    with pytest.raises(InputError, match="other detectors"):
        HindranceDetector().load_state_dict({})


@pytest.fixture
def jumpy(monkeypatch):
    """A plugin with an option and a memory: how many steps the loss has risen in a row."""
    monkeypatch.setattr(register, "_plugins", {})

    @register(name="jumpy")
    class Jumpy:
        """Jumpy: the loss has risen in a row."""

        def __init__(self, /, patience: int = 5) -> None:
            self.patience = patience
            self.memory = {"last": 0.0, "rises": 0.0}

        def __call__(self, seen, /):
            rises = where(seen.loss.x > self.memory["last"], self.memory["rises"] + 1.0, 0.0 * self.memory["rises"])
            self.memory = {"last": seen.loss.x, "rises": rises}
            return where(rises > self.patience, 0.25 + 0.0 * rises, 0.0 * rises)

    return Jumpy


@pytest.mark.parametrize("make", [HindranceDetector, tensors], ids=["floats", "tensors"])
def test_plugin_with_memory_takes_part(jumpy, make):
    detector = make()
    found = [detector.judge(1.0, 1.0 + 1e-6 * step) for step in range(10)]
    assert float(found[-1].causes["jumpy"]) == 0.25
    assert float(found[-1].hindrance) == pytest.approx(0.25)
    assert float(found[-1].is_bad) == 0
    assert "detector jumpy/rises" in detector.state_dict()["slots"]
    patient = HindranceDetector(detectors={"jumpy": {"patience": 50}})
    assert [patient.judge(1.0, 1.0 + step).hindrance for step in range(10)][-1] == 0


def test_acute_plugin_makes_a_step_bad(monkeypatch):
    monkeypatch.setattr(register, "_plugins", {})

    @register(acute=True)
    def loud(seen, /):
        """Loud: always."""
        return 0.75

    assert HindranceDetector().judge(1.0, 1.0).is_bad == 1
