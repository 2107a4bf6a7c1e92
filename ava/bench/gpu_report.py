"""The targets of `ava bench gpu`, and the page that is made from its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, dict[str, Any]]
"""Stage -> what it told."""


@dataclass(frozen=True)
class Target:
    """One number to reach.

    Attributes:
        text: what is asked.
        stage: whose figures answer it.
        value: stage's figures -> the number; raises KeyError, TypeError or ValueError where it is not there.
        at_least: whether the bound is from below.
        bound: what has to be reached.
    """

    text: str
    stage: str
    value: Callable[[dict[str, Any]], float]
    at_least: bool
    bound: float

    def read(self, figures: Figures) -> tuple[float | None, bool | None]:
        """The number and whether it is reached; None twice where it was not measured."""
        try:
            value = float(self.value(figures[self.stage]))
        except (KeyError, TypeError, ValueError):
            return None, None
        return value, value >= self.bound if self.at_least else value <= self.bound


def _best(found: dict[str, Any], key: str) -> float:
    return max(float(part[key]) for part in found.values() if isinstance(part, dict) and part.get(key) is not None)


def _large_linear(found: dict[str, Any]) -> float:
    """The least over the large shapes of the best recipe's gain."""
    large = [parts for shape, parts in found.items() if isinstance(parts, dict) and _is_large(shape)]
    return min(_best(parts, "speedup") for parts in large)


def _is_large(shape: str) -> bool:
    rows, k, n = (int(part) for part in shape.split("x"))
    return rows >= 8192 and k >= 4096 and n >= 4096


def _converted_at_a_loss(found: dict[str, Any]) -> float:
    """How many layers and recipes lose time that the filter would convert."""
    shapes = [parts for parts in found.values() if isinstance(parts, dict)]
    recipes = [part for parts in shapes for part in parts.values() if isinstance(part, dict)]
    measured = [part for part in recipes if "speedup" in part]
    if not measured:
        raise ValueError
    return float(sum(part["speedup"] < 1 and part["filter"] == "converts" for part in measured))


TARGETS = (
    Target("MFU of GPT 350M, sequence 2048, bf16, compiled", "mfu", lambda f: f["350m"]["mfu"], True, 0.50),
    Target("MFU of GPT 1.5B, sequence 2048, bf16, compiled", "mfu", lambda f: f["1558m"]["mfu"], True, 0.50),
    Target("fp8 over bf16, linear layers with K, N >= 4096 and M >= 8k", "fp8_linear", _large_linear, True, 1.2),
    Target("layers that fp8 makes slower and the filter converts", "fp8_linear", _converted_at_a_loss, False, 0),
    Target("fp8 over bf16 end to end at width 4096", "fp8_end_to_end", lambda f: _best(f, "speedup"), True, 1.15),
    Target("AdamW's bytes per second over a copy's", "optimizer", lambda f: f["ava"]["share_of_copy"], True, 0.85),
    Target("GPU idle in the loop", "idle", lambda f: f["idle"], False, 0.02),
    Target("host synchronisations between logged steps", "syncs", lambda f: f["syncs"], False, 0),
    Target(
        "fp8 loss over bf16's, 1,000 steps of GPT 124M", "fp8_loss", lambda f: f["tensorwise"]["over_bf16"], False, 1.01
    ),
)
NOT_MEASURED = "not measured"


def page(machine: str, figures: Figures, *, rehearsal: bool = False) -> str:
    """The results as Markdown.

    Args:
        machine: its description; stands at the top.
        figures: of the stages that ran.
        rehearsal: whether sizes were tiny, so that no number answers a target.
    """
    lines = [
        f"# {machine}",
        "",
        "Made by `scripts/bench_gpu.sh`; all figures are in the JSON file beside this page.",
        "",
    ]
    if rehearsal:
        lines += ["**A rehearsal in tiny sizes: it shows that every stage runs, and measures nothing.**", ""]
    lines += table({} if rehearsal else figures)
    if "loops" in figures:
        lines += ["", "## The same model in other loops", ""]
        lines += ["| loop | ms/step | tokens/s | peak MB |", "|---|---|---|---|"]
        lines += [_loop(name, found) for name, found in figures["loops"].items() if isinstance(found, dict)]
    failed = {stage: found["error"] for stage, found in figures.items() if "error" in found}
    if failed:
        lines += ["", "## What broke", "", *(f"- `{stage}`: {reason}" for stage, reason in failed.items())]
    return "\n".join(lines) + "\n"


def table(figures: Figures) -> list[str]:
    """One row a target."""
    lines = ["| what | target | measured | reached |", "|---|---|---|---|"]
    for target in TARGETS:
        value, reached = target.read(figures)
        asked = f"{'>=' if target.at_least else '<='} {target.bound:g}"
        measured = NOT_MEASURED if value is None else f"{value:.4g}"
        answer = {None: "", True: "yes", False: "no"}[reached]
        lines.append(f"| {target.text} | {asked} | {measured} | {answer} |")
    return lines


def _loop(name: str, found: dict[str, Any]) -> str:
    if "error" in found:
        return f"| {name} | {found['error']} | | |"
    peak = "" if found["peak_bytes"] is None else f"{found['peak_bytes'] / 1e6:,.0f}"
    return f"| {name} | {found['ms']:.1f} | {found['tokens_per_second']:,.0f} | {peak} |"
