"""The curves of a search as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

from ava.optimization.learning_rate.finder.findings import Findings


def write_csv(findings: Findings, path: str | Path) -> None:
    """Write a row for each step: `step`, `lr`, `loss`, `smoothed`; with several seeds `seed` before them.

    Args:
        findings: of a search.
        path: where to.
    """
    several = len(findings.curves) > 1
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(["seed"] if several else []), "step", "lr", "loss", "smoothed"])
        for seed, curve in enumerate(findings.curves):
            for step, values in enumerate(zip(curve.lr, curve.loss, curve.smoothed, strict=True), start=1):
                writer.writerow([*([seed] if several else []), step, *map(repr, values)])
