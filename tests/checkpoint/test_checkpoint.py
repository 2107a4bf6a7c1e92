from __future__ import annotations

import json
import pickle
import resource
import shutil
import sys
from pathlib import Path

import pytest
import torch

from ava.checkpoint.checkpoint import latest, load, prune, read_manifest, resolve, save, steps
from ava.errors import InputError, TrainingFailed

STATE = {
    "model": {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.zeros(3)},
    "optimizer": {"state": {0: {"exp_avg": torch.ones(3, 4), "step": torch.tensor(7.0)}}, "betas": (0.9, 0.99)},
    "progress": {"step": 7, "best": None, "lr": 1e-3},
}
FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def marked(value: float) -> dict:
    return {"model": {"weight": torch.full((4,), value)}}


def mark(checkpoint: Path | None) -> float:
    assert checkpoint is not None
    return load(checkpoint)["model"]["weight"][0].item()


def test_a_state_comes_back(tmp_path):
    path = save(tmp_path / "run" / "checkpoints", 7, STATE, world_size=2)
    assert path == tmp_path / "run" / "checkpoints" / "step-7"
    assert sorted(p.name for p in path.iterdir()) == FILES
    assert (path.parent / "latest").read_text() == "step-7\n"
    back = load(path)
    assert list(back) == list(STATE)
    assert torch.equal(back["model"]["weight"], STATE["model"]["weight"])
    assert back["optimizer"]["betas"] == (0.9, 0.99)
    assert torch.equal(back["optimizer"]["state"][0]["step"], torch.tensor(7.0))
    assert back["progress"] == STATE["progress"]
    manifest = read_manifest(path)
    assert (manifest["step"], manifest["world_size"]) == (7, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8,
                                   torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.float8_e4m3fn,
                                   torch.float8_e5m2, torch.complex64])  # fmt: skip
def test_every_kind_of_tensor_comes_back(tmp_path, dtype):
    base = torch.arange(24).reshape(4, 6).to(dtype)
    tensors = [base, base.t(), base[:, ::2], base[1, 1], base[:0], base[:1].expand(3, 6), base.reshape(2, 2, 2, 3)]
    back = load(save(tmp_path, 1, {"tensors": tensors}))["tensors"]
    for before, after in zip(tensors, back, strict=True):
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        before_bytes = before.contiguous().clone().flatten().view(torch.uint8) if before.numel() else before
        assert torch.equal(before_bytes, after.flatten().view(torch.uint8) if after.numel() else after)


def test_nan_payloads_and_infinities_come_back(tmp_path):
    bits = torch.tensor([0x7FC00001, 0x7F800000, -0x800000, 0x00000001, -0x80000000], dtype=torch.int32)
    back = load(save(tmp_path, 1, {"a": bits.view(torch.float32)}))["a"]
    assert torch.equal(back.view(torch.int32), bits)


def test_channels_last_and_trainable_tensors_come_back_plain(tmp_path):
    weight = torch.nn.Parameter(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last))
    back = load(save(tmp_path, 1, {"a": weight}))["a"]
    assert torch.equal(back, weight)
    assert type(back) is torch.Tensor
    assert not back.requires_grad


def test_what_was_loaded_outlives_the_checkpoint(tmp_path):
    path = save(tmp_path, 1, STATE)
    back = load(path)
    shutil.rmtree(path)
    back["model"]["weight"].add_(1)
    assert torch.equal(back["model"]["weight"], STATE["model"]["weight"] + 1)


def test_a_section_is_a_plain_file_name(tmp_path):
    for name in ["../evil", "a/b", "", ".hidden", "a b"]:
        with pytest.raises(InputError, match="section"):
            save(tmp_path / "x", 1, {name: {}})
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_stored_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="optimizer/x"):
        save(tmp_path / "checkpoints", 1, {"optimizer": {"x": object()}})
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_flipped_bit_is_found_in_every_file(tmp_path, name, place):
    path = save(tmp_path, 7, STATE)
    content = bytearray((path / name).read_bytes())
    position = min(len(content) - 1, int(place * len(content)))
    while chr(content[position]) in " \n" and name == "manifest.json":
        position -= 1
    content[position] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, 5, -1])
def test_a_truncated_file_is_named(tmp_path, name, size):
    path = save(tmp_path, 7, STATE)
    content = (path / name).read_bytes().strip()
    (path / name).write_bytes(content[:size])
    with pytest.raises(InputError, match=name):
        load(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    path = save(tmp_path, 7, STATE)
    (path / name).unlink()
    with pytest.raises(InputError, match=name):
        load(path)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, name):
    path = save(tmp_path, 7, STATE)
    (path / name).unlink()
    (path / name).mkdir()
    with pytest.raises(InputError, match=name):
        load(path)


@pytest.mark.parametrize(
    "content", ["[]", "{}", "null", "7", '{"format": 1}', '{"format": "1", "files": {}}', "\ud800"]
)
def test_a_manifest_that_is_none_is_refused(tmp_path, content):
    path = save(tmp_path, 7, STATE)
    (path / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"manifest\.json"):
        load(path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    path = save(tmp_path, 7, STATE)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(InputError, match=r"format 99.*Upgrade"):
        load(path)


def test_two_checkpoints_cannot_be_mixed(tmp_path):
    first, second = save(tmp_path, 1, marked(1)), save(tmp_path, 2, marked(2))
    shutil.copy(first / "model.safetensors", second / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load(second)


def test_a_step_is_replaced(tmp_path):
    save(tmp_path, 3, {"model": {"weight": torch.zeros(4)}, "gone": torch.ones(2)})
    path = save(tmp_path, 3, marked(2))
    assert mark(path) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-3"]
    assert not (path / "gone.safetensors").exists()


def test_leftovers_of_a_killed_save_are_ignored_then_cleared(tmp_path):
    save(tmp_path, 1, marked(1))
    torn = tmp_path / ".step-2.4711.tmp"
    shutil.copytree(tmp_path / "step-1", torn)
    (torn / "manifest.json").unlink()
    (tmp_path / ".latest.4711.tmp").write_text("step-2")
    assert list(steps(tmp_path)) == [1]
    assert latest(tmp_path) == tmp_path / "step-1"
    save(tmp_path, 3, marked(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-1", "step-3"]


def test_killed_between_the_two_renames_of_a_replacement(tmp_path):
    """The former step-2 still counts, and takes its name back with the next save."""
    save(tmp_path, 1, marked(1))
    save(tmp_path, 2, marked(2))
    (tmp_path / "step-2").rename(tmp_path / ".step-2.replaced")
    found = latest(tmp_path)
    assert mark(found) == 2
    assert resolve(tmp_path) == found
    save(tmp_path, 3, marked(3))
    assert list(steps(tmp_path)) == [1, 2, 3]
    assert mark(steps(tmp_path)[2]) == 2


def test_killed_before_the_replaced_one_is_deleted(tmp_path):
    save(tmp_path, 2, marked(2))
    shutil.copytree(tmp_path / "step-2", tmp_path / ".step-2.replaced")
    save(tmp_path, 2, marked(5))
    assert mark(latest(tmp_path)) == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-2"]


@pytest.mark.parametrize("pointer", [None, "step-9\n", "", "\x00\x00", "../../etc", "step-", b"\xff\xfe"])
def test_without_a_good_pointer_the_newest_is_latest(tmp_path, pointer):
    for step in (9, 10, 8):
        save(tmp_path, step, marked(step))
    shutil.rmtree(tmp_path / "step-9")
    (tmp_path / "latest").unlink()
    if pointer is not None:
        (tmp_path / "latest").write_bytes(pointer if isinstance(pointer, bytes) else pointer.encode())
    assert latest(tmp_path) == tmp_path / "step-10"


def test_the_pointer_wins_over_a_newer_step(tmp_path):
    for step in (10, 5):
        save(tmp_path, step, marked(step))
    assert latest(tmp_path) == tmp_path / "step-5"


def test_latest_of_nothing_is_none(tmp_path):
    assert latest(tmp_path) is None
    assert latest(tmp_path / "absent") is None
    (tmp_path / "step-3").mkdir()
    assert latest(tmp_path) is None


def test_resolve_takes_a_run_its_checkpoints_or_one_of_them(tmp_path):
    path = save(tmp_path / "run" / "checkpoints", 7, STATE)
    for given in (tmp_path / "run", tmp_path / "run" / "checkpoints", path):
        assert resolve(given) == path


def test_resolve_says_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("x")
    for given, said in [("absent", "does not exist"), ("file", "is a file"), (".", "no complete checkpoint")]:
        with pytest.raises(InputError, match=said):
            resolve(tmp_path / given)


def test_an_incomplete_step_given_by_name_is_named(tmp_path):
    path = tmp_path / "step-3"
    path.mkdir()
    with pytest.raises(InputError, match=r"step-3 is no complete checkpoint"):
        load(resolve(path))


def test_prune_keeps_the_last_and_the_best(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step, marked(step))
    prune(tmp_path, 2, {3})
    assert list(steps(tmp_path)) == [3, 5, 6]
    prune(tmp_path, 0, set())
    assert list(steps(tmp_path)) == [6]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-6"]


def test_prune_drops_the_future_that_a_resumed_run_abandoned(tmp_path):
    for step in (10, 20, 30, 15):
        save(tmp_path, step, marked(step))
    prune(tmp_path, 2, set())
    assert list(steps(tmp_path)) == [10, 15]


def test_prune_of_nothing(tmp_path):
    prune(tmp_path, 2, set())
    prune(tmp_path / "absent", 2, set())


def test_a_disk_that_refuses_leaves_earlier_checkpoints_intact(tmp_path):
    save(tmp_path, 1, marked(1))
    big = {"model": {"weight": torch.zeros(1_000_000)}}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(TrainingFailed, match=r"step 2: .*could not be written.*too large.*intact"):
            save(tmp_path, 2, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-1"]
    assert mark(latest(tmp_path)) == 1
    assert mark(save(tmp_path, 2, big)) == 0


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(TrainingFailed, match="could not be written"):
        save(tmp_path / "checkpoints", 2, STATE)


def test_neither_saving_nor_loading_unpickles(tmp_path):
    """CPython reports every class or function that a pickle asks for."""
    asked = []
    sys.addaudithook(lambda event, _: asked.append(event) if event == "pickle.find_class" else None)
    pickle.loads(pickle.dumps(Path))
    assert asked
    asked.clear()
    load(save(tmp_path, 1, STATE))
    assert not asked
