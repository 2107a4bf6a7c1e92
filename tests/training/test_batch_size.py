"""The batch-size finder: the largest that fits, measured; the run is afterwards what it was."""

import subprocess
import sys

import pytest
import torch

from ava import rng
from ava.errors import InputError
from ava.training.batch_size import TOLERANCE, find_accumulate, find_batch_size, search
from ava.training.batch_trials import HostMeter, Trial, Trials, trying
from ava.training.memory_host import free_memory, peak_resident, reset_peak, resident
from ava.training.step import training_step
from tests.training.helpers import small_run, weights
from tests.training.test_range_test import everything
from tests.training.test_resume import same

MIB = 2**20


def hungry_run(*overrides):
    """A small run whose every sample takes 2 MiB on its way."""
    run, _ = small_run("model.width=4", "data.augment=false", *overrides)
    run.model.register_forward_pre_hook(lambda _, inputs: torch.ones(len(inputs[0]), MIB // 2).sum() and None)
    return run


class Scale:
    """Trials of known memory: a slope, a floor, and noise that repeats."""

    def __init__(self, slope, floor, limit, *, measured=True, noise=0.0):
        self.slope, self.floor, self.limit, self.measured, self.noise = slope, floor, limit, measured, noise
        self.meter, self.asked = self, []

    def true(self, size):
        return int(self.floor + self.slope * size * (1 + self.noise * (-1) ** size))

    def warm_up(self):
        return self.floor if self.measured else None

    def take(self, size, num_samples, accumulate, foreseen=None):
        peak = self.true(size)
        fits = peak <= self.limit
        self.asked.append(size)
        return Trial(size, fits, peak if self.measured or fits else None, foreseen)


def found(scale, most=10_000):
    return search(scale, most, lambda size: (size, 1))[-1].size


@pytest.mark.parametrize("measured", [True, False], ids=["measured", "by errors"])
@pytest.mark.parametrize("largest", [1, 2, 3, 7, 100, 1000, 4097])
def test_ends_at_the_largest_within_the_tolerance(largest, measured):
    scale = Scale(1000, 50_000, 50_000 + 1000 * largest, measured=measured)
    assert 0 <= largest - found(scale) < max(1, largest * TOLERANCE)
    assert measured is False or max(scale.asked) <= max(2, largest)


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3])
def test_bears_peaks_that_scatter(noise):
    scale = Scale(1000, 50_000, 550_000, noise=noise)
    size = found(scale)
    assert scale.true(size) <= scale.limit
    assert scale.true(size + 1) > scale.limit or size >= 500 * (1 - noise) / (1 + noise) * (1 - TOLERANCE)


def test_never_tries_more_than_there_is_and_no_more_than_doubles():
    scale = Scale(1, 10, 1e9)
    assert found(scale, most=300) == 300
    assert all(after <= 2 * before for before, after in zip(scale.asked, scale.asked[1:], strict=False))


def test_nothing_fits():
    with pytest.raises(InputError, match="not even a batch of one sample fits") as caught:
        found(Scale(100, 10, 50))
    assert "trainer.activation_checkpointing=true" in str(caught.value)
    assert "optimizer.state=int8" in str(caught.value)


def test_measures_the_peak_of_a_step():
    reset_peak()
    before = resident()
    block = torch.ones(32 * MIB, dtype=torch.uint8)
    del block
    assert peak_resident() - before == pytest.approx(32 * MIB, rel=0.1)
    reset_peak()
    assert peak_resident() - before < 8 * MIB
    assert 0 < free_memory() < 2**50


def the_largest_that_fits_a_given_limit():
    """Measured on both sides: what was found fits; a quarter more does not."""
    run = hungry_run()
    with trying(run, 2**60) as trials:
        trials.warm_up()
        limit = trials.take(80, 80, 1).peak
    batch = find_batch_size(run, limit)
    assert batch.ended == "memory"
    assert batch.batch_size == batch.micro_batch == batch.trials[-1].size
    assert batch.peak <= limit == batch.limit
    largest = 0
    for trial in batch.trials:
        assert trial.size <= largest or trial.foreseen is None or trial.foreseen <= limit
        largest = max(largest, trial.size if trial.fits else 0)
    more = int(batch.batch_size * 1.25)
    with trying(run, limit) as trials:
        trials.warm_up()
        assert not trials.take(more, more, 1).fits


def test_ends_at_the_data():
    run, _ = small_run("model=mlp", "model.width=8", "trainer.accumulate=3", "data.augment=false")
    batch = find_batch_size(run)
    most = len(run.loader.split) // 3
    assert (batch.ended, batch.micro_batch, batch.batch_size) == ("data", most, 3 * most)


def fewest_micro_batches():
    run = hungry_run("trainer.batch_size=120")
    with trying(run, 2**60) as trials:
        trials.warm_up()
        half = trials.take(60, 120, 2).peak
        whole = trials.take(120, 120, 1).peak
    assert half < whole
    assert find_accumulate(run, 2**60) == 1
    assert find_accumulate(run, (half + whole) // 2) == 2
    assert run.loader.accumulate == 1


@pytest.mark.parametrize("check", ["the_largest_that_fits_a_given_limit", "fewest_micro_batches"])
def test_in_a_process_of_its_own(check):
    """What other tests have left in this one would be measured too."""
    command = [sys.executable, "-c", f"from tests.training import test_batch_size; test_batch_size.{check}()"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


CASES = {
    "adamw": [],
    "int8, averages, micro-batches": ["optimizer.state=int8", "trainer.ema_decay=0.9", "trainer.accumulate=3"],
    "fp16": ["precision=fp16"],
    "sophia": ["optimizer=sophia"],
    "schedule-free, batch norm": ["optimizer=schedule_free_adamw", "scheduler=constant", "model=resnet",
                                  "model.layers=10", "model.norm=batch"],
    "surgery that remembers": ["task=digits_multitask", "model=mlp", "surgery=gradnorm"],
    "adaptive clip": ["trainer.clip=zscore"],
}  # fmt: skip


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_run_is_afterwards_what_it_was(case, steps_before):
    """To the bit; and it goes on as a run that was never tried."""
    runs = [small_run(*CASES[case], "model.width=8")[0] for _ in range(2)]
    for run in runs:
        rng.seed(1)
        run.network.train()
        windows = run.loader.windows(run.position)
        for _ in range(steps_before):
            training_step(run, next(windows))
        if run is runs[0]:
            before, random = everything(run), rng.capture()
            with trying(run, 2**60) as trials:
                trials.warm_up()
                assert trials.take(20, 40, 2).fits
            same(everything(run), before)
            same(rng.capture(), random)
        for window, _ in zip(run.loader.windows(run.position), range(2), strict=False):
            training_step(run, window)
    assert torch.equal(*map(weights, runs))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a broken layer")], ids=["interrupt", "error"])
def test_also_where_a_trial_breaks(error):
    run, _ = small_run("trainer.ema_decay=0.9", "model.width=8")
    before, random = everything(run), rng.capture()

    def broken(*_):
        raise error

    def break_off():
        with trying(run, 2**60) as trials:
            trials.warm_up()
            run.model.register_forward_hook(broken)
            trials.take(4, 4, 1)

    with pytest.raises(type(error)):
        break_off()
    run.model._forward_hooks.clear()
    same(everything(run), before)
    same(rng.capture(), random)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=["gpu", "allocator", "python"],
)
def test_no_room_is_no_error(error):
    run, _ = small_run("model.width=8")

    def full(module, inputs):
        if len(inputs[0]) > 5:
            raise error

    handle = run.model.register_forward_pre_hook(full)
    try:
        assert find_batch_size(run, 2**60).batch_size == 5
    finally:
        handle.remove()


def test_the_search_itself_is_not_counted():
    """Copies that are kept to go back to are no part of the training."""
    run = hungry_run()
    meter = HostMeter(2**60)
    with trying(run, 2**60) as trials:
        assert trials.meter.extra >= sum(p.nbytes for p in run.model.parameters())
    assert meter.extra == 0
    assert isinstance(trials, Trials)


def test_without_a_limit_it_leaves_a_tenth_of_what_is_free():
    free = free_memory()
    limit = HostMeter(None).limit - resident()
    assert limit == pytest.approx(0.9 * free, rel=0.05)


def test_refuses_more_parts_than_samples():
    run, _ = small_run("model.width=8")
    run.loader.accumulate = 10_000
    with pytest.raises(InputError, match="are more than the"):
        find_batch_size(run)
