from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from ava.reporting.plain import PlainProgress
from ava.reporting.progress import LiveProgress, progress

INFO = {"run_dir": "outputs/a", "first_step": 1, "total_steps": 40, "parameters": 58634, "unit": "samples",
        "task": "digits", "model": "convnet", "optimizer": "lion", "scheduler": "onecycle", "device": "cpu", "ranks": 2,
        "data": "899 digits", "notices": ["Beware [of] the dog."]}  # fmt: skip
SUMMARY = {
    "status": "done", "steps": 40, "seconds": 6.25, "peak_memory": 312_000_000, "eval/accuracy": 0.96, "loss": 0.1,
    "best": {"loss": {"value": 0.1, "step": 40}, "eval/accuracy": {"value": 0.97, "step": 20}},
    "baselines": [{"name": "majority class", "metric": "eval/accuracy", "value": 0.101},
                  {"name": "SVC", "metric": "eval/accuracy", "value": 0.969},
                  {"name": "of another metric", "metric": "eval/loss", "value": 9.0}],
}  # fmt: skip
GOLDEN = """\
run directory outputs/a
digits, convnet, lion, onecycle, cpu, 2 ranks, 58,634 parameters, steps 1 to 40
data: 899 digits
Beware [of] the dog.
step 10/40  loss 0.5000  loss/a 0.2500  lr 3.000e-04  grad_norm 12.5000  samples/s 12,346  left 0:15
eval 10/40  accuracy 0.9000  loss nan
step 20/40  loss 0.2500  loss/a 0.1250  lr 3.000e-04  grad_norm inf  samples/s 12,346  left 0:20
step 40/40  loss 0.1250  loss/a 0.0625  lr 3.000e-04  grad_norm 12.5000  samples/s 12,346  left 0:00
done, 40 steps, 6.2 s, peak memory 312 MB
metric                          value  at step
eval/accuracy  this run, best  0.9700       20
eval/accuracy  this run, last  0.9600       40
eval/accuracy  majority class  0.1010
eval/accuracy  SVC             0.9690
"""


class Clock:
    """Time that passes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def drive(display, clock):
    display.on_start(INFO)
    for step, now, loss, norm in [(10, 5.0, 0.5, 12.5), (20, 15.0, 0.25, float("inf")), (40, 35.0, 0.125, 12.5)]:
        clock.now = now
        display.on_log({"step": step, "time": now, "loss": loss, "loss/a": loss / 2, "lr": 3e-4, "grad_norm": norm,
                        "throughput": 12345.6, "memory": 3e8})  # fmt: skip
        if step == 10:
            display.on_eval({"step": step, "time": now, "eval/accuracy": 0.9, "eval/loss": float("nan")})
        display.on_checkpoint(step, "checkpoints/step")
    display.on_end(SUMMARY)
    display.close()


def test_plain_lines():
    output, clock = io.StringIO(), Clock()
    drive(PlainProgress(Console(file=output), clock), clock)
    assert [line.rstrip() for line in output.getvalue().splitlines()] == GOLDEN.splitlines()


def test_plain_lines_are_never_broken():
    output, clock = io.StringIO(), Clock()
    drive(PlainProgress(Console(file=output, width=20), clock), clock)
    assert all(line in output.getvalue().splitlines() for line in GOLDEN.splitlines()[:9])


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_live_display_fits_the_terminal_and_gives_it_back(width):
    output, clock = io.StringIO(), Clock()
    drive(LiveProgress(Console(file=output, force_terminal=True, width=width), clock), clock)
    text = output.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert all(len(line) <= width for line in re.split(r"[\r\n]", visible) if not line.startswith("run directory"))
    assert "40/40" in visible or width == 20


def test_the_live_display_shows_all():
    output, clock = io.StringIO(), Clock()
    drive(LiveProgress(Console(file=output, force_terminal=True, width=120), clock), clock)
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    for text in ["step 10/40", "25%", "0:15 left", "loss 0.5000", "grad_norm inf", "samples/s 12,346",
                 "accuracy 0.9000", "this run, best", "SVC", "Beware [of] the dog."]:  # fmt: skip
        assert text in visible


def test_the_live_display_draws_at_most_ten_times_a_second():
    output, clock = io.StringIO(), Clock()
    display = LiveProgress(Console(file=output, force_terminal=True, width=80), clock)
    display.on_start(INFO | {"total_steps": 1_000_000})
    sizes = set()
    for step in range(1, 1000):
        clock.now = step / 1000
        display.on_log({"step": step, "loss": 0.5})
        sizes.add(len(output.getvalue()))
    display.close()
    assert len(sizes) <= 12


def test_an_error_gives_the_terminal_back():
    output, clock = io.StringIO(), Clock()
    display = LiveProgress(Console(file=output, force_terminal=True, width=80), clock)
    display.on_start(INFO)
    display.on_log({"step": 1, "loss": 0.5})
    display.close()
    display.close()
    assert output.getvalue().endswith("\x1b[2K") or "\x1b[?25h" in output.getvalue()


@pytest.mark.parametrize("display", [LiveProgress, PlainProgress])
def test_little_need_be_known(display):
    console = Console(file=io.StringIO(), force_terminal=display is LiveProgress, width=60)
    shown = display(console)
    shown.on_start({"run_dir": "a"})
    shown.on_log({"step": 1})
    shown.on_eval({"step": 1})
    shown.on_end({})
    shown.close()
    assert "step 1" in console.file.getvalue()


def test_the_output_decides():
    assert isinstance(progress(Console(file=io.StringIO())), PlainProgress)
    assert isinstance(
        progress(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})), LiveProgress
    )
    assert isinstance(
        progress(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})), PlainProgress
    )
