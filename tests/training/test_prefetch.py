import itertools

import pytest
import torch

from ava.data.loader import Position, TrainingLoader
from ava.data.prefetch import prefetched
from ava.training.kernels import kernel_settings
from ava.training.step import training_step
from tests.training.helpers import small_run, weights

CPU = torch.device("cpu")


class Copies:
    """A way to another place on the same device, which notes what it is asked."""

    def __init__(self):
        self.noted = []
        self.numbers = {}

    def begin(self, batch):
        copy = {name: tensor.clone() for name, tensor in batch.items()}
        self.numbers[id(copy)] = len(self.numbers)
        self.noted.append(("begin", self.numbers[id(copy)]))
        return copy

    def end(self, batch):
        self.noted.append(("end", self.numbers[id(batch)]))


class Numbers:
    """A split whose samples are their own indices; some cannot be read."""

    def __init__(self, length, broken=()):
        self.length, self.broken = length, set(broken)

    def __len__(self):
        return self.length

    def fetch(self, indices, epoch):
        if self.broken & set(indices.tolist()):
            raise OSError("a sample cannot be read")
        return {"inputs": torch.as_tensor(indices), "targets": torch.as_tensor(indices)}


def test_on_a_cpu_nothing_is_done():
    windows = TrainingLoader(Numbers(10), batch_size=4).windows(Position())
    assert prefetched(windows, CPU) is windows


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("start", [Position(), Position(1, 8)], ids=["start", "resumed"])
def test_the_windows_are_the_same(start, workers):
    def windows():
        loader = TrainingLoader(Numbers(22), batch_size=8, accumulate=2, workers=workers, prefetch=2)
        return itertools.islice(loader.windows(start), 7)

    for plain, copied in zip(windows(), prefetched(windows(), CPU, Copies()), strict=True):
        assert (copied.position, copied.start, copied.num_samples) == (plain.position, plain.start, plain.num_samples)
        assert plain.copies is None
        assert plain.on_device is plain.batches
        assert len(copied.on_device) == len(plain.batches)
        for mine, near, theirs in zip(copied.batches, copied.on_device, plain.batches, strict=True):
            assert near is not mine
            assert torch.equal(mine["inputs"], theirs["inputs"])
            assert torch.equal(near["inputs"], theirs["inputs"])


def test_the_next_copy_begins_before_this_window_is_used():
    copies = Copies()
    windows = prefetched(TrainingLoader(Numbers(64), batch_size=8).windows(Position()), CPU, copies)
    next(windows)
    assert copies.noted == [("begin", 0), ("begin", 1), ("end", 0)]
    next(windows)
    assert copies.noted[3:] == [("begin", 2), ("end", 1)]


def test_what_cannot_be_read_is_told_when_its_turn_comes():
    """The window before it is handed out first."""
    order = TrainingLoader(Numbers(24), batch_size=8).indices(Position(), 24)
    loader = TrainingLoader(Numbers(24, broken=[order[-1]]), batch_size=8)
    windows = prefetched(loader.windows(Position()), CPU, Copies())
    assert [next(windows).position for _ in range(2)] == [Position(0, 8), Position(0, 16)]
    with pytest.raises(OSError, match="cannot be read"):
        next(windows)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_it_ends_where_the_windows_end(count):
    windows = itertools.islice(TrainingLoader(Numbers(24), batch_size=8).windows(Position()), count)
    assert len(list(prefetched(windows, CPU, Copies()))) == count


def test_training_is_the_same_bit_for_bit():
    results = []
    for transfer in (None, Copies()):
        run, _ = small_run("model=mlp", "trainer.accumulate=2")
        run.network.train()
        windows = prefetched(run.loader.windows(Position()), CPU, transfer)
        for window in itertools.islice(windows, 5):
            training_step(run, window)
        results.append(weights(run))
    assert torch.equal(*results)


def switches():
    return (
        torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision,
    )  # fmt: skip


@pytest.mark.parametrize("tf32", [False, True], ids=["ieee", "tf32"])
def test_kernel_settings_hold_within_and_not_after(tf32):
    """Every name of a switch can be asked within, the older and the newer."""
    before = switches()
    with kernel_settings(cudnn_benchmark=True, tf32=tf32):
        assert switches()[:4] == (True, "high" if tf32 else "highest", tf32, tf32)
        assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is tf32
    assert switches() == before


def test_kernel_settings_do_not_outlive_a_failure():
    before = switches()
    with pytest.raises(KeyError), kernel_settings(cudnn_benchmark=True, tf32=True):
        raise KeyError
    assert switches() == before
