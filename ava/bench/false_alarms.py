"""`ava bench false_alarms`: how often sound trainings alarm the hindrance detector, and what faults it sees.

    ava bench false_alarms                              one seed of digits (convnet, mlp) and GPT, about 25,000 steps
    ava bench false_alarms --tasks mlp --steps 300      a quick look
    ava bench false_alarms --cache runs.jsonl --seeds 2 3 --json alarms.json

Gradient norm, update norm and loss of every step of sound trainings are recorded once (`--cache` keeps them), then
detectors run over them. Whatever they report there is a false alarm. For detection, one step of a recording is
multiplied by a factor, many times over, always from the detector's state just before; or everything from a step on is,
and the delay to a persistent alarm is counted.

Beside ours stand rules that others use: a value above mean + 6 deviations of the last 128 (OLMo), a z-score of the
norm above 2.5 (ZClip), a loss above twice the mean of the last 100 (llm-foundry).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ava.bench import machine, tables
from ava.bench.alarm_rules import RULES, Rule
from ava.bench.clean_runs import TASKS, Recording, recorded, wanted
from ava.bench.trainings import not_negative, positive
from ava.optimization import HindranceDetector, Verdict
from ava.optimization.stability.judgement import LOSS

EVERY = 25
"""Steps between two places where a fault is tried."""
HORIZON = 40
"""Steps within which a lasting fault has to be seen."""
ONCE = {"loss x2": (1.0, 2.0), "loss x3": (1.0, 3.0), "gradient x10": (10.0, 1.0), "gradient x100": (100.0, 1.0)}
"""A fault of one step -> factors on gradient norm and loss."""
UPDATES = (3.0, 10.0)
"""Factors on the length of an update, tried from `EARLIEST` steps past the warmup on."""
EARLIEST = 10
SHIFT, SHIFT_STEPS = 4.5, 10
RISES = (0.25, 0.5, 0.75)
"""A small damage: the loss higher by so many deviations of its noise, or nats, for so many steps."""
LASTING = {"loss x2 for good": (1.0, 2.0), "loss x3 for good": (1.0, 3.0), "both x30 for good": (30.0, 30.0)}


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, and write JSON where asked."""
    arguments = _parse(argv)
    options = {"threshold": arguments.threshold, "sigmas": arguments.sigmas}
    runs = list(recorded(wanted(arguments.tasks, arguments.seeds), arguments.steps, arguments.cache))
    sound = [run for run in runs if run.is_sound]
    alarms = [clean_alarms(sound, task, options) for task in [*arguments.tasks, "all"]]
    alarms.append(clean_alarms(sound, "all", options, with_sizes=False) | {"task": "all, batch sizes not told"})
    others = [rule_alarms(sound, rule) for rule in RULES]
    faults = [seen_once(sound, name, options) for name in ONCE]
    faults += [row for factor in UPDATES for row in seen_updates(sound, factor, options)]
    faults += [seen_lasting(sound, name, options) for name in LASTING]
    faults += seen_shift(sound, options)
    microseconds = cost()
    _print(alarms, others, faults, len(runs) - len(sound))
    tables.console().print(f"one step's judgements on the processor: {microseconds:.0f} microseconds")
    if arguments.json:
        figures = {"machine": machine.describe(), "clean": alarms, "rules": others, "faults": faults,
                   "microseconds": microseconds}  # fmt: skip
        arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 0


def replay(
    run: Recording, step: int, detector: HindranceDetector, factors: tuple[float, float] = (1, 1),
    with_size: bool = True, rise: float = 0.0,
) -> Verdict:  # fmt: skip
    """Let the detector see one step of a recording: norm and loss times `factors`, the loss plus `rise`."""
    detector.tell(lr=run.lr[step], phase=run.phase[step], batch_size=run.samples[step] if with_size else None)
    return detector.judge(run.gradient[step] * factors[0], run.loss[step] * factors[1] + rise)


def is_whole(run: Recording, step: int) -> bool:
    """Whether the step's batch is at least half of the usual one; the trainer's guard judges no others."""
    return 2 * run.samples[step] >= max(run.samples)


def clean_alarms(
    runs: Iterable[Recording], task: str, options: dict[str, Any], with_sizes: bool = True
) -> dict[str, Any]:  # fmt: skip
    """False alarms per 10,000 steps on the recordings of a task ("all": of every one)."""
    chosen = [run for run in runs if task in (run.task, "all")]
    counts = dict.fromkeys(("gradient", "skips", "updates", "paces", "persistent"), 0)
    hindrance: list[float] = []
    for run in chosen:
        detector, paced, lasted = HindranceDetector(**options), HindranceDetector(**options), False
        for step in range(len(run.loss)):
            verdict = replay(run, step, detector, with_size=with_sizes)
            counts["gradient"] += bool(verdict.gradient_factor < 1)
            counts["skips"] += bool(verdict.skip > 0)
            counts["updates"] += bool(detector.judge_update(run.update[step]) < 1)
            if is_whole(run, step):
                paced.tell(lr=run.lr[step], phase=run.phase[step])
                counts["paces"] += bool(paced.judge_update(run.pace(step)) < 1)
            # One alarm that lasts is one rollback.
            counts["persistent"] += bool(verdict.persistent) and not lasted
            lasted = bool(verdict.persistent)
            hindrance.append(float(verdict.hindrance))
    steps = max(1, len(hindrance))
    rates = {name: round(1e4 * count / steps, 1) for name, count in counts.items()}
    share = sum(h > 0.1 for h in hindrance) / steps
    return {"task": task, "runs": len(chosen), "steps": len(hindrance), **rates, "hindered": f"{share:.1%}"}


def rule_alarms(runs: Iterable[Recording], rule: Rule) -> dict[str, Any]:
    """False alarms of a known rule, and the share of faults of one step that it sees."""
    alarms, steps = 0, 0
    seen: dict[str, list[bool]] = {name: [] for name in ONCE}
    for run in runs:
        judge, places = rule.build(), _places(run)
        for step, pair in enumerate(zip(run.gradient, run.loss, strict=True)):
            if step in places:
                for name, factors in ONCE.items():
                    seen[name].append(judge.is_outlier(pair[0] * factors[0], pair[1] * factors[1]))
            alarms += judge.is_outlier(*pair)
            judge.learn(*pair)
            steps += 1
    shares = {name: f"{statistics.fmean(values):.1%}" for name, values in seen.items()}
    return {"rule": rule.name, "alarms": round(1e4 * alarms / max(1, steps), 1), **shares}


def seen_once(runs: Iterable[Recording], fault: str, options: dict[str, Any]) -> dict[str, Any]:
    """The share of places past the warmup where a fault of one step is seen in that step."""
    found: list[bool] = []
    for run in runs:
        detector, places = HindranceDetector(**options), _places(run)
        for step in range(len(run.loss)):
            if step in places:
                before = detector.memory.clone()
                found.append(float(replay(run, step, detector, ONCE[fault]).is_bad) > 0)
                detector.memory.copy_(before)
            replay(run, step, detector)
    return {"fault": fault, "tried": len(found), "seen": f"{statistics.fmean(found):.1%}", "delay": None}


def seen_shift(runs: Iterable[Recording], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The share of places where `SHIFT` times its noise more loss, for `SHIFT_STEPS` steps, is bad in one of them."""
    delays: dict[str, list[int | None]] = {f"loss + {SHIFT} deviations, {SHIFT_STEPS} steps": []}
    delays |= {f"loss + {rise} nats, {SHIFT_STEPS} steps": [] for rise in RISES}
    for run in runs:
        detector, places, noise = HindranceDetector(**options), _places(run), run.noise()
        for step in range(len(run.loss)):
            if step in places:
                raised = run.loss[step] * (math.exp(SHIFT * max(noise[step], LOSS.floor)) - 1)
                for name, rise in zip(delays, (raised, *RISES), strict=True):
                    delays[name].append(_delay(run, step, detector, rise))
            replay(run, step, detector)
    rows = []
    for name, found in delays.items():
        seen = [delay for delay in found if delay is not None]
        median = statistics.median(seen) if seen else None
        rows.append({"fault": name, "tried": len(found), "seen": f"{len(seen) / max(1, len(found)):.1%}",
                     "delay": median})  # fmt: skip
    return rows


def _delay(run: Recording, step: int, detector: HindranceDetector, rise: float) -> int | None:
    """Steps until a loss higher by `rise` is bad; None where it never is. The detector stays as it was."""
    before, found = detector.memory.clone(), None
    for ahead in range(step, step + SHIFT_STEPS):
        if replay(run, ahead, detector, rise=rise).is_bad:
            found = ahead - step + 1
            break
    detector.memory.copy_(before)
    return found


def seen_updates(runs: Iterable[Recording], factor: float, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The share of places, early ones too, where an update `factor` times too long is shrunk; and as a pace."""
    found: dict[str, list[bool]] = {"": [], ", as a pace": []}
    for run in runs:
        pair = [HindranceDetector(**options) for _ in found]
        places = {step for step in _places(run, start=EARLIEST) if is_whole(run, step)}
        for step in range(len(run.loss)):
            if not is_whole(run, step):
                continue
            for detector, name, value in zip(pair, found, (run.update[step], run.pace(step)), strict=True):
                detector.tell(lr=run.lr[step], phase=run.phase[step])
                if step in places:
                    before = detector.memory.clone()
                    found[name].append(bool(detector.judge_update(factor * value) < 1))
                    detector.memory.copy_(before)
                detector.judge_update(value)
    return [{"fault": f"update x{factor:g}{name}", "tried": len(values), "seen": f"{statistics.fmean(values):.1%}",
             "delay": None} for name, values in found.items()]  # fmt: skip


def seen_lasting(runs: Iterable[Recording], fault: str, options: dict[str, Any]) -> dict[str, Any]:
    """The share of places where a lasting fault becomes persistent within `HORIZON` steps; the median of the delays."""
    delays: list[int] = []
    tried = 0
    for run in runs:
        detector, places = HindranceDetector(**options), _places(run, 4 * EVERY)
        for step in range(len(run.loss)):
            if step in places:
                before, tried = detector.memory.clone(), tried + 1
                ahead = range(step, min(step + HORIZON, len(run.loss)))
                delays += [k - step + 1 for k in ahead if replay(run, k, detector, LASTING[fault]).persistent][:1]
                detector.memory.copy_(before)
            replay(run, step, detector)
    median = statistics.median(delays) if delays else None
    return {"fault": fault, "tried": tried, "seen": f"{len(delays) / max(1, tried):.1%}", "delay": median}


def cost(rounds: int = 21, steps: int = 200) -> float:
    """Microseconds of processor time that a step's two judgements take; the median over rounds."""
    detector, norm, loss = HindranceDetector(), torch.tensor(1.0), torch.tensor(2.0)
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(steps):
            detector.tell(lr=1e-3, phase="main", batch_size=64)
            detector.judge(norm, loss)
            detector.judge_update(norm)
        spent.append((time.process_time() - start) / steps * 1e6)
    return statistics.median(spent)


def _places(run: Recording, every: int = EVERY, start: int = 2 * EVERY) -> set[int]:
    """Where faults are tried: `start` steps past the warmup, and not in an epoch's last batch, which says little."""
    steps = len(run.loss)
    usual = max(run.samples)
    return {step for step in range(steps // 20 + start, steps - HORIZON, every) if run.samples[step] == usual}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench false_alarms", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="default: all")
    parser.add_argument("--seeds", type=not_negative, nargs="+", default=[2], help="of the trainings (default 2)")
    parser.add_argument("--steps", type=positive, help="of each training (default 1000, of gpt 800)")
    parser.add_argument("--threshold", type=float, default=0.1, help="of the detector (default 0.1)")
    parser.add_argument("--sigmas", type=float, default=5.0, help="of the detector (default 5)")
    parser.add_argument("--cache", type=Path, help="recordings are kept in this file and taken from it")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def _print(
    alarms: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], faults: Sequence[dict[str, Any]], unsound: int
) -> None:
    columns = {"task": "", "runs": "runs", "steps": "steps", "gradient": "gradient spikes", "skips": "loss skips",
               "updates": "update spikes", "paces": "update / rate",
               "persistent": "persistent", "hindered": "hindrance > 0.1"}  # fmt: skip
    left_out = f"; {unsound} trainings left out that diverged" if unsound else ""
    tables.show(f"false alarms per 10,000 clean steps; {machine.describe()}{left_out}", columns, {"task"}, alarms)
    tables.show(
        "known rules on the same steps: false alarms per 10,000, faults of one step seen",
        {"rule": "", "alarms": "alarms", **{name: name for name in ONCE}}, {"rule"}, others,
    )  # fmt: skip
    tables.show(
        f"faults seen (lasting ones: persistent within {HORIZON} steps, median delay)",
        {"fault": "", "tried": "tried", "seen": "seen", "delay": "delay"}, {"fault"}, faults,
    )  # fmt: skip
