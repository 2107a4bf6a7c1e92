"""What is decided about gradients is decided alike on all ranks, and as one process decides it."""

import json

import pytest

from tests.distributed.test_ranks import launch, losses

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

DAMAGED = """
from dataclasses import replace
from ava.data.digits import digits
from ava.data.source import Data
from ava.registry import data

@data(kind="images")
def damaged(seed: int, /) -> Data:
    "Digits, one of which is not a number."
    made = digits(seed)
    images = made.train.images.clone()
    images[17] = float("nan")
    return replace(made, train=replace(made.train, images=images))
"""


@pytest.mark.parametrize(
    "extra", [[], ["clip=zscore"], ["clip=adaptive", "trainer.accumulate=2"]], ids=["norm", "zscore", "agc"]
)
def test_ranks_skip_the_same_step(tmp_path, extra):
    (tmp_path / "damaged.py").write_text(DAMAGED)
    common = ["plugins=[damaged]", "task=classification", "data=damaged", "health.on_nonfinite=skip", *extra]
    told = {}
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        launch(ranks, *common, f"run_dir={folder}", PYTHONPATH=str(tmp_path))
        told[ranks] = [json.loads(line) for line in (folder / "incidents.jsonl").read_text().splitlines()]
    assert len(told[1]) >= 1
    for one, two in zip(told[1], told[2], strict=True):
        assert {**one, "time": 0} == {**two, "time": 0}
        assert (one["action"], 17 in one["samples"]) == ("skip", True)
    first, _ = losses(tmp_path / "1")
    second, _ = losses(tmp_path / "2")
    bad = {incident["step"] - 1 for incident in told[1]}
    finite = [index for index in range(len(first)) if index not in bad]
    assert [second[i] for i in finite] == pytest.approx([first[i] for i in finite], rel=1e-4)


@pytest.mark.parametrize(
    "extra",
    [
        ["surgery=pcgrad"],
        ["surgery=mgda", "trainer.accumulate=2"],
        ["surgery=cagrad", "surgery.level=features"],
        ["surgery=upgrad", "surgery.every=3"],
        ["surgery=graddrop", "precision=bf16"],
        ["surgery=famo"],
    ],
    ids=["pcgrad", "mgda-accumulate", "cagrad-features", "upgrad-every", "graddrop-bf16", "famo"],
)
def test_surgery_on_two_ranks_equals_one(tmp_path, extra):
    common = ["task=digits_multitask", "model=mlp", "optimizer=sgd", "optimizer.lr=0.01", *extra]
    for ranks in (1, 2):
        launch(ranks, *common, f"run_dir={tmp_path / str(ranks)}")
    rel = 1e-2 if "precision=bf16" in extra else 1e-4
    assert losses(tmp_path / "2")[0] == pytest.approx(losses(tmp_path / "1")[0], rel=rel)


def test_an_anomaly_of_one_rank_is_in_the_incidents(tmp_path):
    """Sample 17 goes to one of two ranks, whichever: that rank names what happened, in the run's own file."""
    (tmp_path / "damaged.py").write_text(DAMAGED)
    arguments = ["plugins=[damaged]", "task=classification", "data=damaged", "health.anomaly=true"]
    done = launch(2, *arguments, f"run_dir={tmp_path / 'run'}", check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    told = [json.loads(line)["error"] for line in (tmp_path / "run" / "incidents.jsonl").read_text().splitlines()]
    assert any("the batch's `inputs`" in text for text in told)


WEIGHED = """
from torch.distributed import get_rank
from ava.registry import task
from ava.tasks.classification import Classification

class Weighed(Classification):
    def losses(self, model, batch):
        loss = super().losses(model, batch)["loss"]
        return {"loss": loss * (1.0 if get_rank() == 0 else float("nan"))}

@task(kind="images")
def weighed(data, /):
    "The digits, with a weight that is not a number on the second rank."
    return Weighed(data)
"""


def test_the_rank_whose_loss_is_nan_does_not_blame_another(tmp_path):
    """The other rank says that it was sent; neither message may send the reader in a circle."""
    (tmp_path / "weighed.py").write_text(WEIGHED)
    arguments = ["plugins=[weighed]", "task=weighed", "data=digits", "health.anomaly=true"]
    done = launch(2, *arguments, f"run_dir={tmp_path / 'run'}", check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    told = [json.loads(line)["error"] for line in (tmp_path / "run" / "incidents.jsonl").read_text().splitlines()]
    own = [text for text in told if "weighed.py" in text]
    assert len(own) == 1
    assert "with a constant" in own[0]
    assert "another rank" not in own[0]
    assert own[0].endswith("number[] of NaN.")
