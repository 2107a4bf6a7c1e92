"""Trainings that were measured, kept in a file, so that none is measured twice and an interruption loses none.

A training is found again by all that it was made of: the whole configuration, what is looked at in the validation
data, the versions and the number of threads that computed it, and the source's commit. Trainings of other commits or
settings stay in the file and count for nothing, unless it is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ava.bench import trainings_file
from ava.bench.rate_searches import Job, Training, carry_out
from ava.bench.trainings_file import Entry, identity
from ava.config.saved import plain_yaml
from ava.config.schema import Config
from ava.reporting.environment import git_revision, versions

OF_THE_SOURCE = ("ava", "revision")
"""What of `made_with` says which source computed."""


class TrainingBook:
    """Trains what it does not know yet.

    Args:
        file: where trainings are kept, read if it exists; None keeps them for this object's life.
        any_commit: whether a training by another commit counts, where its configuration was the same.

    Attributes:
        num_foreign: trainings used so far that another commit made.

    Raises:
        InputError: the file is not one of this measurement's.
    """

    def __init__(self, file: Path | None = None, any_commit: bool = False) -> None:
        self._file, self._any_commit = file, any_commit
        self._maker = _maker()
        self._entries = {} if file is None else trainings_file.read(file, Training.from_dict)
        self.num_foreign = 0

    def carry_out(self, jobs: list[Job], told: Callable[[Job], None]) -> dict[Job, Training]:
        """Train each, unless that was done; the file is written after each.

        Args:
            jobs: none of them twice.
            told: is called after each.

        Raises:
            InputError: a configuration cannot be, or the file cannot be written.
        """
        configs = {job: job.compose() for job in jobs}  # what cannot be is told before hours of training
        done: dict[Job, Training] = {}
        for job, config in configs.items():
            done[job] = self._one(job, config)
            told(job)
        return done

    def write(self, tables: dict[str, Any]) -> None:
        """Write the file, if there is to be one.

        Args:
            tables: what was made of the trainings, in plain values.

        Raises:
            InputError: it cannot be written.
        """
        if self._file is not None:
            self._entries = trainings_file.write(self._file, self._entries, tables, Training.from_dict)

    def _one(self, job: Job, config: Config) -> Training:
        work = _work(job, config)
        known = self._find(work)
        if known is not None:
            self.num_foreign += known["made_with"] != self._maker
            return Training.from_dict(known)
        training = carry_out(job, config)
        entry = {
            "problem": job.label, "optimizer": job.optimizer, "seed": job.seed, **training.as_dict(),
            "overrides": job.words(), "num_valid": job.problem.num_valid, "made_with": self._maker, "work": work,
        }  # fmt: skip
        self._entries[identity(entry)] = entry
        self.write({})
        return training

    def _find(self, work: str) -> Entry | None:
        """The training of this work, rather by this commit than by another."""
        own = self._entries.get(identity({"work": work, "made_with": self._maker}))
        if own is not None or not self._any_commit:
            return own
        fitting = (e for e in self._entries.values() if e["work"] == work and self._differs_in_source(e["made_with"]))
        return next(fitting, None)

    def _differs_in_source(self, maker: dict[str, Any]) -> bool:
        """Whether the rest is the same."""
        return all(maker.get(key) == value for key, value in self._maker.items() if key not in OF_THE_SOURCE)


def _maker() -> dict[str, Any]:
    """What computes: other versions may give other numbers, other threads at least other times."""
    here = versions()
    revision = git_revision(Path(__file__).parent)
    return {"ava": here["ava"], "revision": revision, "torch": here["torch"], "threads": torch.get_num_threads()}


def _work(job: Job, config: Config) -> str:
    """The same for the same training, whoever makes it."""
    tree = config.as_dict()
    if not job.finds:
        del tree["lr_finder"]  # it changes nothing
    return hashlib.sha256(json.dumps([plain_yaml(tree), job.problem.num_valid]).encode()).hexdigest()
