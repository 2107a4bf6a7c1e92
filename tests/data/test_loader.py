import itertools

import numpy as np
import pytest
import torch

from ava.data.loader import Position, TrainingLoader, epoch_order, evaluation_batches
from ava.errors import InputError


class Numbers:
    """Sample i is the number i, and the epoch it was fetched in."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def fetch(self, indices, epoch):
        return {"inputs": torch.from_numpy(indices.copy()), "epoch": torch.full((len(indices),), epoch)}


def seen(loader, start, steps):
    windows = itertools.islice(loader.windows(start), steps)
    return [[batch["inputs"].tolist() for batch in w.batches] if w.counted else [] for w in windows]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_ranks_and_micro_batches_neither_lose_nor_repeat(world_size, accumulate):
    ranks = [
        TrainingLoader(Numbers(23), batch_size=6, accumulate=accumulate, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    per_rank = [seen(loader, Position(), 8) for loader in ranks]
    for epoch in range(2):
        for step in range(4):
            window = [i for rank in per_rank for batch in rank[epoch * 4 + step] for i in batch]
            assert window == epoch_order(23, 0, epoch)[step * 6 : step * 6 + 6].tolist()


def test_every_rank_takes_part_in_every_step():
    loader = TrainingLoader(Numbers(7), batch_size=6, rank=3, world_size=4)
    windows = list(itertools.islice(loader.windows(Position()), 2))
    assert windows[1].num_samples == 1
    assert not windows[1].counted
    assert len(windows[1].batches) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_order_goes_on_where_it_stopped(workers):
    loader = TrainingLoader(Numbers(50), batch_size=8, seed=3, workers=workers)
    windows = list(itertools.islice(loader.windows(Position()), 12))
    expected = [[batch["inputs"].tolist() for batch in w.batches] for w in windows]
    for stop in (1, 6, 7):
        assert seen(loader, windows[stop - 1].position, 12 - stop) == expected[stop:]


class Spoiled(Numbers):
    """Every sample but the first is bad input."""

    def fetch(self, indices, epoch):
        if indices.max() > 0:
            raise InputError("sample cannot be read.", key="data.path", value="x", hint="Mend it.")
        return super().fetch(indices, epoch)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_input_is_told_the_same_way_from_a_worker(workers):
    loader = TrainingLoader(Spoiled(50), batch_size=8, workers=workers)
    with pytest.raises(InputError) as caught:
        next(loader.windows(Position()))
    assert str(caught.value) == "data.path=x: sample cannot be read. Mend it."


class Broken(Numbers):
    """A split with a fault of its own, in an exception that does not pickle."""

    def fetch(self, indices, epoch):
        class LocalError(Exception): ...

        raise LocalError("what went wrong")


def test_a_fault_in_a_worker_is_one_sentence_with_the_traceback_beside_it():
    loader = TrainingLoader(Broken(50), batch_size=8, workers=1)
    with pytest.raises(RuntimeError) as caught:
        next(loader.windows(Position()))
    assert str(caught.value) == "LocalError: what went wrong"
    assert "in fetch" in "".join(caught.value.__notes__)


def test_fetching_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    loader = TrainingLoader(Numbers(50), batch_size=8, workers=1)
    seen(loader, Position(), 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_epochs_have_orders_of_their_own_and_seeds_too():
    orders = [epoch_order(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(100)) for order in orders)


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_evaluation_sees_every_sample_once(world_size):
    numbers = [
        i
        for rank in range(world_size)
        for batch in evaluation_batches(Numbers(13), batch_size=4, rank=rank, world_size=world_size)
        for i in batch["inputs"].tolist()
    ]
    assert sorted(numbers) == list(range(13))


def test_steps_per_epoch_counts_the_smaller_last_window():
    assert TrainingLoader(Numbers(898), batch_size=64).steps_per_epoch == 15
