"""The kernel that accelerators get, made for the processor here: what it says, and when it is not made."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch

from ava.optimization import HindranceDetector
from ava.optimization.optimizers.arithmetic import where
from ava.optimization.stability import fusing
from ava.registry import detector as register

from .test_detection_memory import faulty, say


@pytest.fixture(autouse=True)
def none_made(monkeypatch):
    monkeypatch.setattr(fusing, "_made", {})


@pytest.fixture
def plugins(monkeypatch):
    monkeypatch.setattr(register, "_plugins", {})


def fused(**options) -> HindranceDetector:
    detector = HindranceDetector(**options)
    detector._memory.always_fused = True
    return detector


def tensors(numbers, dtype=torch.float64):
    return [None if x is None else torch.tensor(x, dtype=dtype) for x in numbers]


def assert_alike(one: HindranceDetector, floats: HindranceDetector, steps) -> None:
    for step, (told, *numbers) in enumerate(steps):
        expected = say(floats, told, *numbers)
        torch.testing.assert_close(say(one, told, *tensors(numbers)), expected, rtol=1e-9, atol=1e-9, equal_nan=True,
                                   msg=lambda text, at=step: f"step {at}: {text}")  # fmt: skip
        torch.testing.assert_close(one.memory, floats.memory, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_one_kernel_a_judgement_says_what_floats_say(monkeypatch):
    from torch._inductor import config, metrics

    # Thresholds at which the compiler keeps an intermediate, as they are on GPUs.
    on_gpu = {"realize_cpu_opcount_threshold": 30, "realize_cpu_acc_reads_threshold": 8}
    monkeypatch.setattr(fusing, "OPTIONS", fusing.OPTIONS | on_gpu)
    detector = fused()
    with config.patch(force_disable_caches=True):
        metrics.reset()
        for number, measured in ((1, (1.0, 2.0)), (2, (1.0,))):
            detector.judge(*tensors(measured))
            assert metrics.generated_kernel_count == number
        memory = detector.memory
        detector.judge_update(torch.tensor(1.0, dtype=torch.float64))
        assert metrics.generated_kernel_count == 3
    detector.restart()
    for seed in range(4):
        detector.restart()
        detector._told = HindranceDetector()._told
        assert_alike(detector, HindranceDetector(), faulty(250, seed))
    assert detector.memory is memory
    assert metrics.generated_kernel_count == 3, "made once"
    assert_alike(fused(), HindranceDetector(), faulty(20, 5))
    assert metrics.generated_kernel_count == 3, "the same for another detector of the same options"


@pytest.mark.slow
def test_kernel_goes_on_bit_for_bit_from_a_state_a_copy_and_a_pickle():
    steps = list(faulty(90, 2))
    one = fused(detectors=["loss_spike", "vanishing"])
    for told, *numbers in steps[:60]:
        say(one, told, *tensors(numbers))
    others = [copy.deepcopy(one), pickle.loads(pickle.dumps(one)), fused(detectors=["loss_spike", "vanishing"])]
    others[2].load_state_dict(one.state_dict())
    others[2].tell(**steps[59][0])
    tail = [say(one, told, *tensors(numbers)) for told, *numbers in steps[60:]]
    for other in others:
        assert str([say(other, told, *tensors(numbers)) for told, *numbers in steps[60:]]) == str(tail)
        assert torch.equal(other.memory, one.memory)


@pytest.mark.slow
def test_kernel_in_float32_skips_the_same_steps():
    wide, narrow = HindranceDetector(), fused()
    narrow._memory.tensor = narrow.memory.float()
    skip = list(wide.judge(1.0).numbers()).index("skip")
    narrow.judge(1.0)
    for told, *numbers in faulty(150, 0):
        assert say(wide, told, *numbers)[skip] == say(narrow, told, *tensors(numbers, torch.float32))[skip]
        assert torch.isfinite(narrow.memory).all()


@pytest.mark.slow
def test_kernel_of_a_plugin_within_a_compiled_step(plugins):
    @register(name="jumpy")
    class Jumpy:
        """Jumpy: the loss has risen in a row."""

        def __init__(self, /, patience: int = 5) -> None:
            self.patience = patience
            self.memory = {"last": 0.0, "rises": 0.0}

        def __call__(self, seen, /):
            rises = where(seen.loss.x > self.memory["last"], self.memory["rises"] + 1.0, 0.0)
            self.memory = {"last": seen.loss.x, "rises": rises}
            return where(rises > self.patience, 0.25, 0.0)

    detector = fused(detectors=["jumpy"])

    @torch.compile(backend="eager")
    def step(norm, loss):
        return detector.judge(2 * norm, loss + 1.0).causes["jumpy"] + 1.0

    found = [float(step(*tensors((1.0, 1.0 + 1e-6 * at)))) for at in range(10)]
    assert found == [1.0] * 5 + [1.25] * 5
    floats = HindranceDetector(detectors=["jumpy"])
    for at in range(10):
        floats.judge(2.0, 2.0 + 1e-6 * at)
    torch.testing.assert_close(detector.memory, floats.memory)


def test_floats_within_a_compiled_step():
    one, other = HindranceDetector(), HindranceDetector()
    step = torch.compile(lambda norm, loss: one.judge(2 * norm, loss).hindrance, backend="eager")
    for norm, loss in [(1.0, 2.0), (3.0, 1.0), (float("nan"), 1.0)]:
        assert step(*tensors((norm, loss))) == other.judge(2 * norm, loss).hindrance


def read(self, seen):
    return 0.5 if seen.loss.x > 0 else 0.0


def count(self, seen):
    self.calls = getattr(self, "calls", 0) + 1
    return 0.0 * seen.loss.x


def look_across(self, seen):
    x = 0.0 * seen.loss.x
    return x.sum() if isinstance(x, torch.Tensor) else x


@pytest.mark.parametrize(
    ("call", "why"), [(read, "Boolean value"), (count, "outside"), (look_across, "sum")],
    ids=["reads", "keeps", "sums"],
)  # fmt: skip
def test_detector_that_cannot_be_compiled_runs_with_one_notice(plugins, call, why):
    register(name="odd")(type("Odd", (), {"__doc__": "Odd: one.", "__call__": call}))
    detector, floats = fused(detectors=["odd", "explosion"]), HindranceDetector(detectors=["odd", "explosion"])
    steps = list(faulty(20, 0))
    steps = [(told, norm, loss or 1.0, update) for told, norm, loss, update in steps]
    told, *numbers = steps[0]
    with pytest.warns(UserWarning, match=why):
        detector.judge(*tensors(numbers[:2]))
    floats.judge(*numbers[:2])
    assert not hasattr(detector.parts[0]._object, "calls") or detector.parts[0]._object.calls <= 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for told, norm, loss, _ in steps:
            detector.tell(**told)
            floats.tell(**told)
            given = detector.judge(*tensors((norm, loss)))
            torch.testing.assert_close(float(given.hindrance), floats.judge(norm, loss).hindrance)


@pytest.mark.slow
def test_without_a_compiler_it_runs_with_a_notice():
    from torch._inductor import config

    detector, floats = fused(detectors=["nonfinite"]), HindranceDetector(detectors=["nonfinite"])
    with config.patch({"cpp.cxx": ("a-compiler-that-is-not-there",), "force_disable_caches": True}):
        with pytest.warns(UserWarning, match="small kernels"):
            detector.judge_update(torch.tensor(1.0, dtype=torch.float64))
        with pytest.warns(UserWarning, match="small kernels"):
            detector.judge(*tensors((1.0, 2.0)))
        with pytest.warns(UserWarning, match="small kernels"):
            detector.judge(torch.tensor(1.0, dtype=torch.float64))
    floats.judge_update(1.0)
    floats.judge(1.0, 2.0)
    floats.judge(1.0)
    assert_alike(detector, floats, faulty(20, 1))


def test_verdict_is_one_vector():
    detector = HindranceDetector()
    assert detector.judge(1.0, 2.0).vector is None
    detector._memory.always_tensors = True
    verdict = detector.judge(*tensors((1.0, 2.0)))
    assert verdict.vector.tolist()[:-2] == [float(number) for number in verdict.numbers().values()][:-2]
    assert len(verdict.vector) == len(verdict.numbers())
    assert all(number._base is not None for number in verdict.numbers().values())
