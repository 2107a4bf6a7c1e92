"""The search for a learning rate: the range test, its files, and what becomes of its suggestion."""

from __future__ import annotations

import json
from pathlib import Path

from ava.checkpoint import atomic
from ava.checkpoint.checkpoint import load
from ava.config.combinations import finder_config
from ava.config.fitting import fit_accumulate
from ava.config.launch import claimed, launched
from ava.config.parts import build_run
from ava.config.saved import with_lr
from ava.config.schema import Config, ResumePlan
from ava.errors import InputError
from ava.optimization.learning_rate.finder.findings import Findings
from ava.training.range_test import search_lr
from ava.training.state import Run


def find_lr(config: Config, *, saved: ResumePlan | None) -> tuple[Findings, Path] | None:
    """Run only the LR range test of `config`, and write `lr_finder.*` into its run directory.

    Args:
        config: the checked configuration.
        saved: the checkpoint from which to test, if any.

    Returns:
        What was found and where it was written; None on ranks other than 0.

    Raises:
        InputError: as `run`, or nothing can be suggested.
    """
    with launched(config) as (config, world, _):
        config, _ = fit_accumulate(config, world)
        training, _ = build_run(config, world)
        if saved is not None:
            world.together(lambda: training.restore(load(saved.checkpoint)))
        with claimed(config, saved, world) as folder:
            findings = search(config, training, folder)
        return (findings, folder) if world.is_main else None


def search(config: Config, training: Run, folder: Path) -> Findings:
    """Run the range test that the section `lr_finder` describes; every rank takes part.

    Args:
        config: the checked configuration.
        training: left as it is.
        folder: gets `lr_finder.png`, `lr_finder.csv` and `lr_finder.json`, also where nothing can be suggested.

    Raises:
        InputError: the curve says nothing about the learning rate.
    """
    asked = finder_config(config.lr_finder)
    findings = search_lr(training, asked, config.lr_finder.seeds)
    if training.world.is_main:
        _write(findings, folder)
    if (refusal := findings.refusal) is not None:
        where = f" {folder / 'lr_finder.png'} shows the curve."
        key = f"lr_finder.{refusal.key}" if refusal.key else None
        raise InputError(refusal.problem + where, key=key, value=refusal.value, hint=refusal.hint)
    return findings


def take_up(config: Config, findings: Findings) -> tuple[Config, str]:
    """Train with the suggested rate, as the peak of the schedule; groups keep their ratio to it.

    Args:
        config: with the rate so far.
        findings: with a suggestion.

    Returns:
        The configuration with the new rate, from which the training is built anew, so that it is the one that a
        resumed run builds; and a sentence for the start of the run.
    """
    lr, former = findings.chosen.lr, config.optimizer.options["lr"]
    said = (
        f"The range test suggests a learning rate of {lr:.3g}, in place of {former:.3g}: {findings.chosen.reason} "
        "lr_finder.png shows the curve."
    )
    return with_lr(config, lr), said


def _write(findings: Findings, folder: Path) -> None:
    from ava.optimization.learning_rate.finder.plot import draw  # matplotlib takes its time
    from ava.optimization.learning_rate.finder.table import write_csv

    draw(findings, folder / "lr_finder.png")
    write_csv(findings, folder / "lr_finder.csv")
    atomic.write_text(folder / "lr_finder.json", json.dumps(findings.as_dict(), indent=1) + "\n")
