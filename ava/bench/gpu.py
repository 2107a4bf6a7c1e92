"""`ava bench gpu`: what has to be measured on an accelerator, in one call of about ten minutes.

    ava bench gpu                              every stage, into docs/benchmarks/<machine>.json and .md
    ava bench gpu --stages mfu optimizer       only these
    ava bench gpu --device cpu --tiny          a rehearsal: every stage in tiny sizes, no figure of use

Each stage runs in a process of its own with a time limit and writes each figure as it comes, so a stage that breaks or
hangs loses nothing of the others. A later call with `--stages` adds to the same page.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ava.bench import machine
from ava.bench.gpu_report import Figures, page
from ava.bench.gpu_setup import Scale
from ava.reporting.peaks import device_name


@dataclass(frozen=True)
class Stage:
    """One measurement: a function of its name in `module`, and the seconds it may take."""

    module: str
    limit: int


STAGES = {
    "optimizer": Stage("gpu_kernels", 60),
    "syncs": Stage("gpu_loop", 75),
    "idle": Stage("gpu_loop", 75),
    "mfu": Stage("gpu_models", 240),
    "fp8_linear": Stage("gpu_kernels", 120),
    "fp8_end_to_end": Stage("gpu_models", 150),
    "fp8_loss": Stage("gpu_loss", 300),
    "loops": Stage("gpu_loop", 120),
}
"""In the order in which they run: what is short and says much first."""


def main(argv: list[str] | None = None) -> int:
    """Run the stages, and write the page."""
    parser = argparse.ArgumentParser(prog="ava bench gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="which (default all)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", "--dry-run", action="store_true", help="tiny sizes: shows that every stage runs")
    parser.add_argument("--minutes", type=float, default=9.5, help="what all stages together may take (default 9.5)")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="folder of the results")
    parser.add_argument("--one", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    scale = Scale(torch.device(arguments.device), arguments.tiny)
    if arguments.one is not None:
        run_stage(arguments.one, scale, arguments.file)
        return 0
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("ava bench gpu: there is no CUDA device here; `--device cpu --tiny` rehearses every stage.")
        return 2
    figures = _run_all(arguments, scale)
    print(page(_describe(scale), figures, rehearsal=scale.tiny))
    return 1 if any("error" in found for found in figures.values()) else 0


def run_stage(name: str, scale: Scale, file: Path) -> None:
    """Run one stage here; each figure is added to `file` as it comes."""
    found: dict[str, Any] = {}

    def tell(part: dict[str, Any]) -> None:
        found.update(part)
        file.write_text(json.dumps(found), encoding="utf-8")

    getattr(importlib.import_module(f"ava.bench.{STAGES[name].module}"), name)(scale, tell)


def _run_all(arguments: argparse.Namespace, scale: Scale) -> Figures:
    """Every stage in a process of its own; the results are written after each."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^a-z0-9]+", "-", device_name(scale.device).lower()).strip("-") + ("-tiny" if scale.tiny else "")
    file = arguments.out / f"{stem}.json"
    figures = _earlier(file, _describe(scale))
    end = time.monotonic() + 60 * arguments.minutes
    for name in arguments.stages:
        left = min(STAGES[name].limit, int(end - time.monotonic()))
        began = time.monotonic()
        figures[name] = {"error": "no time was left"} if left < 5 else _in_a_process(name, scale, left)
        figures[name]["seconds"] = round(time.monotonic() - began, 1)
        print(f"{name}: {json.dumps(figures[name])}", flush=True)
        found = {"machine": _describe(scale), "rehearsal": scale.tiny, "stages": figures}
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        text = page(_describe(scale), figures, rehearsal=scale.tiny)
        file.with_suffix(".md").write_text(text, encoding="utf-8")
    return figures


def _earlier(file: Path, described: str) -> Figures:
    """Stages that an earlier call measured on the same machine; they stay until they are measured again."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    stages: Figures = found["stages"] if found.get("machine") == described else {}
    return stages


def _in_a_process(name: str, scale: Scale, limit: int) -> dict[str, Any]:
    """What a stage told before it ended, broke or ran out of time."""
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "figures.json", Path(folder) / "log"
        command = [sys.executable, "-c", "import sys; from ava.bench.gpu import main; sys.exit(main(sys.argv[1:]))"]
        command += ["--one", name, "--file", str(file), "--device", scale.device.type]
        command += ["--tiny"] if scale.tiny else []
        with log.open("w") as output:
            try:
                code: int | None = subprocess.run(
                    command, stdout=output, stderr=subprocess.STDOUT, timeout=limit, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if code is None:
            found["error"] = f"stopped after {limit} s"
        elif code != 0:
            found["error"] = f"exit {code}: " + " ".join(log.read_text(encoding="utf-8").split())[-600:]
    return found


def _describe(scale: Scale) -> str:
    if scale.device.type != "cuda":
        return machine.describe()
    return f"{device_name(scale.device)}, CUDA {torch.version.cuda}, {machine.describe()}"
