"""Ava's learning-rate finder and others', each used as its documentation says.

    ava              LRFinder(model, optimizer, loss_fn, config).find(loader)
    lightning        Tuner(trainer).lr_find(module, loader), then `suggestion()`
    torch-lr-finder  range_test(loader), then `plot()`, which is what suggests a rate, and `reset()`, which is how it
                     restores; here in a `finally`, as a careful user would write it

All get the same range and number of steps, and their own defaults otherwise. The last one's `start_lr` is the range's
begin for all groups; without it the groups would begin at their own rates and all end at the highest one.
"""

from __future__ import annotations

import importlib
import importlib.util

from matplotlib.figure import Figure

from ava.bench.arms.finder_arm import Finder, Range, Search, silently
from ava.bench.finder_scene import Scene
from ava.optimization.learning_rate.finder.lr_finder import LRFinder
from ava.optimization.learning_rate.finder.range_test import LRFinderConfig

PACKAGES = {"ava": "ava", "lightning": "lightning", "torch-lr-finder": "torch_lr_finder"}
"""Finder -> what has to be installed."""


def is_installed(name: str) -> bool:
    """Whether the package of a finder is at hand."""
    return importlib.util.find_spec(PACKAGES[name]) is not None


def finder_named(name: str) -> Finder:
    """The finder; others' packages are imported here."""
    if name == "ava":
        return _ava
    if name == "torch-lr-finder":
        return _torch_lr_finder
    with silently():
        from ava.bench.arms import lightning_finder
    return lightning_finder.prepare


def _ava(scene: Scene, tested: Range) -> Search:
    config = LRFinderConfig(tested.min_lr, tested.max_lr, tested.num_steps)
    return lambda: LRFinder(scene.model, scene.optimizer, scene.loss_fn, config).find(scene.loader)[0]


def _torch_lr_finder(scene: Scene, tested: Range) -> Search:
    with silently():
        module = importlib.import_module("torch_lr_finder")

    def search() -> float | None:
        with silently():
            finder = module.LRFinder(scene.model, scene.optimizer, scene.loss_fn)
            try:
                finder.range_test(scene.loader, start_lr=tested.min_lr, end_lr=tested.max_lr, num_iter=tested.num_steps)
                _, lr = finder.plot(ax=Figure().add_subplot())
            finally:
                finder.reset()
        return float(lr)

    return search
