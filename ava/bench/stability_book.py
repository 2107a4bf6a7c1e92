"""Trainings of `ava bench stability` that were made, kept in a file, so that an interruption loses few.

A training is found again by its scenario, its whole configuration, and what computed it: versions, threads, the
source's commit. Of a checkout that differs from its commit it is known only that it differs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ava.bench import trainings_file
from ava.bench.stability_trainings import Outcome, Scenario, carry_out
from ava.bench.trainings_file import identity
from ava.config.saved import plain_yaml
from ava.reporting.environment import git_revision, versions

WRITTEN_EVERY = 20.0
"""Seconds between two writings of the file."""


class Book:
    """Trains what it does not know yet.

    Args:
        file: where outcomes are kept, read if it exists; None keeps them for this object's life.
        any_commit: whether a training by another commit counts.
        processes: trainings at a time, each in a process with one thread; 1 trains in this one.

    Raises:
        InputError: the file is not one of this measurement's.
    """

    def __init__(self, file: Path | None = None, any_commit: bool = False, processes: int = 1) -> None:
        self._file, self._any_commit, self._processes = file, any_commit, processes
        here = versions()
        self._maker = {"ava": here["ava"], "torch": here["torch"], "revision": git_revision(Path(__file__).parent)}
        self._entries = {} if file is None else trainings_file.read(file, Outcome.from_dict)
        self._written_at = time.monotonic()

    def carry_out(self, scenarios: Sequence[Scenario], told: Callable[[Scenario], None]) -> dict[Scenario, Outcome]:
        """Train each, unless that was done.

        Args:
            scenarios: what is wanted.
            told: is called after each.

        Raises:
            InputError: a configuration cannot be, or the file cannot be written.
        """
        works = {scenario: _work(scenario) for scenario in dict.fromkeys(scenarios)}
        done = {scenario: found for scenario, work in works.items() if (found := self._find(work)) is not None}
        for scenario in done:
            told(scenario)
        try:
            for scenario, outcome in self._trained([one for one in works if one not in done]):
                done[scenario] = outcome
                self._keep(scenario, works[scenario], outcome)
                told(scenario)
        finally:
            self.write({})
        return done

    def write(self, tables: dict[str, Any]) -> None:
        """Write the file, if there is to be one.

        Args:
            tables: what was made of the trainings, in plain values.

        Raises:
            InputError: it cannot be written.
        """
        if self._file is not None:
            self._entries = trainings_file.write(self._file, self._entries, tables, Outcome.from_dict)
        self._written_at = time.monotonic()

    def _trained(self, scenarios: list[Scenario]) -> Iterator[tuple[Scenario, Outcome]]:
        if self._processes == 1 or len(scenarios) < 2:
            yield from map(_one, scenarios)
            return
        # Forked processes would share torch's threads, which do not survive a fork.
        with multiprocessing.get_context("spawn").Pool(self._processes, _alone) as pool:
            yield from pool.imap_unordered(_one, scenarios)

    def _keep(self, scenario: Scenario, work: str, outcome: Outcome) -> None:
        entry = {
            "scenario": scenario.as_dict(), "overrides": scenario.words(), **dataclasses.asdict(outcome),
            "made_with": self._maker, "work": work,
        }  # fmt: skip
        self._entries[identity(entry)] = entry
        if time.monotonic() - self._written_at > WRITTEN_EVERY:
            self.write({})

    def _find(self, work: str) -> Outcome | None:
        """The outcome of this work, rather by this commit than by another."""
        known = self._entries.get(identity({"work": work, "made_with": self._maker}))
        if known is None and self._any_commit:
            known = next((entry for entry in self._entries.values() if entry["work"] == work), None)
        return None if known is None else Outcome.from_dict(known)


def _alone() -> None:
    torch.set_num_threads(1)


def _one(scenario: Scenario) -> tuple[Scenario, Outcome]:
    return scenario, carry_out(scenario)


def _work(scenario: Scenario) -> str:
    """The same for the same training, whoever makes it."""
    said = [plain_yaml(scenario.compose().as_dict()), scenario.as_dict()]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
