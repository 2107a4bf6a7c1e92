"""How often a sound training is given advice, and whether following it helps one that is not.

Small models are trained at a good rate, and at rates far above and below it. Of each bad one the first advice about the
rate is taken, once, and the training begins anew: the loss of its last evaluation is compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import ava
from ava.bench import machine
from ava.bench.trainings import positive
from ava.errors import TrainingFailed
from ava.reporting import json_lines

RATES = {
    "mlp": {"adamw": 0.003, "sgd": 0.1, "lion": 0.001},
    "convnet": {"adamw": 0.01, "sgd": 0.1, "lion": 0.003},
    "gpt": {"adamw": 0.003, "sgd": 0.1, "lion": 0.001},
}
"""The best of a grid with a factor of 3, at 150 to 200 steps."""
TIMES = (30.0, 100.0, 1 / 300, 1 / 3000)
_COMMON = ("logger=[]", "trainer.device=cpu", "health.on_nonfinite=skip", "health.max_consecutive=100000",
           "checkpoint.every=100000", "checkpoint.keep_best=false", "trainer.eval_every=50")  # fmt: skip
_CLEAN = {
    "cosine, 200 steps, a line every 5": ("trainer.max_steps=200", "trainer.log_every=5"),
    "constant, 300 steps, a line every 10": ("scheduler=constant", "trainer.max_steps=300", "trainer.log_every=10"),
}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Measure and print.

    Args:
        argv: the options; None takes them from the process.
    """
    options = _parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        words = {model: _model(model, place) for model in RATES}
        rows = [*_clean(options, words, place), *_bad(options, words, place)]
    _print(rows)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


def _clean(options: argparse.Namespace, words: dict[str, list[str]], place: Path) -> list[dict[str, Any]]:
    """Every advice to a sound training is a false one."""
    rows = []
    for model, rates in RATES.items():
        for optimizer, rate in rates.items():
            for how, plan in _CLEAN.items():
                for seed in range(options.seeds):
                    said = [*words[model], f"optimizer={optimizer}", *plan, f"seed={seed}"]
                    loss, advice = _trained(said, rate, place)
                    rows.append({"what": "sound", "model": model, "optimizer": optimizer, "how": how, "loss": loss,
                                 "rules": [one["rule"] for one in advice]})  # fmt: skip
    return rows


def _bad(options: argparse.Namespace, words: dict[str, list[str]], place: Path) -> list[dict[str, Any]]:
    rows = []
    for model, rates in RATES.items():
        for optimizer, rate in rates.items():
            best, _ = _trained([*words[model], f"optimizer={optimizer}", *_CLEAN_PLAN], rate, place)
            for times in TIMES:
                said = [*words[model], f"optimizer={optimizer}", *_CLEAN_PLAN]
                loss, advice = _trained(said, times * rate, place)
                about = [one for one in advice if one["rule"] in ("rate_too_high", "rate_too_low")]
                after = _trained(said, about[0]["lr"], place)[0] if about else math.nan
                rows.append({"what": "bad", "model": model, "optimizer": optimizer, "times": times, "loss": loss,
                             "after": after, "best": best, "rules": [one["rule"] for one in advice],
                             "lr": about[0]["lr"] if about else None, "good": rate})  # fmt: skip
    return rows


_CLEAN_PLAN = _CLEAN["cosine, 200 steps, a line every 5"]


def _trained(words: list[str], rate: float, place: Path) -> tuple[float, list[dict[str, Any]]]:
    """The last evaluation's loss, and the advice that was given."""
    folder = Path(tempfile.mkdtemp(dir=place)) / "run"
    try:
        with contextlib.redirect_stdout(StringIO()):
            loss = float(ava.train([*_COMMON, *words, f"optimizer.lr={rate}", f"run_dir={folder}"])["eval/loss"])
    except TrainingFailed:
        loss = math.inf
    incidents = json_lines.read(folder / "incidents.jsonl")
    return loss, [one for one in incidents if one["kind"] == "advice"]


def _model(name: str, place: Path) -> list[str]:
    """The words that choose a small model and its data."""
    if name != "gpt":
        return [f"model={name}", *(["model.width=16"] if name == "convnet" else [])]
    folder = Path(ava.__file__).parent
    text = place / "source.txt"
    text.write_text("".join(path.read_text() for path in sorted((folder / "optimization").rglob("*.py"))))
    return ["task=language_model", "data=text", f"path={text}", "data.context=64", "model=gpt", "model.layers=2",
            "model.width=64", "model.heads=2", "trainer.batch_size=8"]  # fmt: skip


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench advice", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=positive, default=2, help="of each sound training (default 2)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def _print(rows: list[dict[str, Any]]) -> None:
    console = Console(width=120)
    sound = [row for row in rows if row["what"] == "sound"]
    false = [row for row in sound if row["rules"]]
    console.print(
        f"{machine.describe()}\n{len(sound)} sound trainings, {sum(len(row['rules']) for row in false)} advices"
    )
    for row in false:
        console.print(f"  {row['model']} {row['optimizer']}, {row['how']}: {', '.join(row['rules'])}")
    table = Table(title="loss of the last evaluation, before and after following the advice once", title_justify="left")
    for heading in (
        "model",
        "optimizer",
        "rate / good one",
        "advice",
        "advised / good one",
        "loss",
        "after",
        "good one",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "optimizer", "advice") else "right")
    for row in rows:
        if row["what"] == "bad":
            advised = "" if row["lr"] is None else f"{row['lr'] / row['good']:.2g}"
            said = ", ".join(row["rules"]) or "none"
            losses = [f"{row[name]:.3g}" for name in ("loss", "after", "best")]
            table.add_row(row["model"], row["optimizer"], f"{row['times']:.2g}", said, advised, *losses)
    console.print(table)


if __name__ == "__main__":
    main()
