"""Every stage of the GPU's bench runs in tiny sizes; its page says what was not measured."""

import json
import sys
from pathlib import Path

import pytest
import torch

from ava.bench import gpu
from ava.bench.gpu_loop import idle_share
from ava.bench.gpu_report import NOT_MEASURED, TARGETS, page, table
from ava.bench.gpu_setup import Scale
from tests.config.conftest import forgetful

__all__ = ["forgetful"]

TINY = Scale(torch.device("cpu"), True)
FIGURES = {
    "mfu": {"350m": {"mfu": 0.55}, "1558m": {"mfu": 0.45}},
    "fp8_linear": {
        "8192x4096x4096": {
            "bf16_ms": 1.0,
            "tensorwise": {"speedup": 1.3, "filter": "converts"},
            "rowwise": {"speedup": 1.1, "filter": "converts"},
        },
        "8192x1024x1024": {"bf16_ms": 1.0, "tensorwise": {"speedup": 0.7, "filter": "is too small"}},
        "seconds": 12.0,
    },
    "syncs": {"syncs": 0},
    "optimizer": {"error": "stopped after 60 s"},
}


@pytest.fixture(autouse=True)
def _plugin_registers_anew(forgetful, monkeypatch):
    monkeypatch.delitem(sys.modules, "ava.bench.gpu_data", raising=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "stage",
    [pytest.param(name, marks=[pytest.mark.slow] if name in ("loops", "fp8_loss") else []) for name in gpu.STAGES],
)
def test_a_stage_runs_on_a_processor(stage, tmp_path):
    if stage.startswith("fp8"):
        pytest.importorskip("torchao")
    if stage == "loops":
        pytest.importorskip("transformers")
    gpu.run_stage(stage, TINY, tmp_path / "figures.json")
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found
    assert "error" not in json.dumps(found)


def test_figures_become_answers():
    answers = {target.text: target.read(FIGURES) for target in TARGETS}
    values = list(answers.values())
    assert values[0] == (0.55, True)
    assert values[1] == (0.45, False)
    assert values[2] == (1.3, True)
    assert values[3] == (0.0, True)
    assert values[5] == (None, None)
    assert values[7] == (0.0, True)


def test_a_layer_converted_at_a_loss_is_counted():
    figures = {"fp8_linear": {"8192x4096x4096": {"rowwise": {"speedup": 0.9, "filter": "converts"}}}}
    assert TARGETS[3].read(figures) == (1.0, False)


def test_the_page_tells_what_broke_and_what_was_not_measured():
    text = page("Some GPU", FIGURES)
    assert "`optimizer`: stopped after 60 s" in text
    assert text.count(NOT_MEASURED) == 4
    assert page("cpu", FIGURES, rehearsal=True).count(NOT_MEASURED) == len(TARGETS)


def test_the_readme_has_every_target_as_not_measured():
    folder = Path(gpu.__file__).parents[2] / "docs/benchmarks"
    if any(folder.glob("*.json")):
        pytest.skip("there is a machine's own page")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "\n".join(table({})) in readme
    assert "Nothing has been measured on a GPU yet" in readme


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([], None),
        ([(0, 10)], 0.0),
        ([(0, 4), (6, 10)], 0.2),
        ([(6, 10), (0, 8)], 0.0),
        ([(0, 10), (1, 2), (19, 20)], 0.45),
    ],
    ids=["none", "one", "gap", "overlap", "nested"],
)
def test_idle_is_what_no_span_covers(spans, share):
    assert idle_share(spans) == (None if share is None else pytest.approx(share))


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu.main([]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().out


def test_a_later_call_adds_to_the_page(tmp_path):
    described = gpu._describe(TINY)
    (tmp_path / "x.json").write_text(json.dumps({"machine": described, "stages": {"mfu": {"350m": {}}}}))
    assert gpu._earlier(tmp_path / "x.json", described) == {"mfu": {"350m": {}}}
    assert gpu._earlier(tmp_path / "x.json", "another") == {}
    assert gpu._earlier(tmp_path / "y.json", described) == {}


@pytest.mark.slow
def test_stages_run_in_processes_and_one_that_breaks_loses_nothing(tmp_path, capsys):
    arguments = ["--device", "cpu", "--tiny", "--out", str(tmp_path), "--stages", "optimizer"]
    assert gpu.main(arguments) == 0
    assert gpu.main([*arguments[:-1], "syncs", "--minutes", "0.01"]) == 1
    found = json.loads((tmp_path / "cpu-tiny.json").read_text())["stages"]
    assert found["optimizer"]["ava"]["ms"] > 0
    assert found["syncs"]["error"] == "no time was left"
    assert "no time was left" in capsys.readouterr().out
