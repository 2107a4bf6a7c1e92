"""Imports point down, and only the top two layers know Hydra."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ava"
LAYERS = [
    {"registry", "errors", "rng"},
    {"optimization"},
    {"distributed", "checkpoint", "reporting"},
    {"models", "data"},
    {"tasks"},
    {"training"},
    {"config", "bench"},
    {"cli"},
]
FLOOR = {name: number for number, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names if node.module == "ava"}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    below = {name.split(".")[1] for name in imported(path) if name.startswith("ava.")}
    upward = {name for name in below & FLOOR.keys() if FLOOR[name] > FLOOR[own]}
    assert not upward, f"{own} stands below {upward}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_config_and_cli_know_hydra(path):
    if path.relative_to(PACKAGE).parts[0] not in ("config", "cli"):
        assert not {name for name in imported(path) if name.split(".")[0] in ("hydra", "omegaconf", "pydantic")}


def test_every_package_has_a_floor():
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert packages <= FLOOR.keys()


def test_a_run_imports_nothing_dear_before_it_needs_it():
    """The compiler alone takes 0.8 s of processor time to import, which every run would pay."""
    dear = ["torch._dynamo", "torch.distributed.tensor", "matplotlib", "sklearn", "scipy"]
    question = f"import sys, ava.config.build; print([name for name in {dear} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
