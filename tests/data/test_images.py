"""An image folder: splits, decoding, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ava.data.images import images
from ava.data.source import ImageSpec
from ava.errors import InputError


def _write(path, colour, size=(10, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def _labels(split) -> list[int]:
    return split.fetch(np.arange(len(split)), 0)["targets"].tolist()


def test_pixels_and_labels(tmp_path):
    _write(tmp_path / "blue" / "a.png", (0, 0, 255))
    _write(tmp_path / "blue" / "b.jpg", (0, 0, 255))
    _write(tmp_path / "red" / "deep" / "a.PNG", (255, 0, 0))
    _write(tmp_path / "red" / "b.gif", (255, 0, 0))
    (tmp_path / "red" / "notes.txt").write_text("no image")
    data = images(0, path=str(tmp_path), size=5, augment=False)
    assert data.spec == ImageSpec(3, 5, 5, 2)
    assert _labels(data.train) == _labels(data.valid) == [0, 1]
    for split in (data.train, data.valid):
        pixels = split.fetch(np.array([1, 0]), 0)["inputs"]
        assert pixels.shape == (2, 3, 5, 5)
        expected = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[:, :, None, None].expand(2, 3, 5, 5)
        torch.testing.assert_close(pixels, expected, atol=0.02, rtol=0)
    grey = images(0, path=str(tmp_path), size=5, channels=1, augment=False)
    assert grey.train.fetch(np.array([0]), 0)["inputs"].mean() == pytest.approx(0.114, abs=0.01)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_of_grey_keep_their_shades(tmp_path, channels):
    for name, shade in (("a", 20_000), ("b", 60_000)):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.fromarray(np.full((6, 6), shade, dtype=np.uint16)).save(tmp_path / name / f"{k}.png")
    data = images(0, path=str(tmp_path), size=4, channels=channels, augment=False)
    pixels = data.train.fetch(np.array([0, 1]), 0)["inputs"]
    assert pixels.mean((1, 2, 3)).tolist() == pytest.approx([20_000 / 65_535, 60_000 / 65_535], abs=0.01)


def test_a_photograph_is_turned_upright(tmp_path):
    for k in range(2):
        for name in ("a", "b"):
            _write(tmp_path / name / f"{k}.png", (k, k, k))
    tall = Image.new("L", (4, 8), 0)
    tall.paste(255, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 3
    for k in range(2):
        tall.save(tmp_path / "a" / f"{k}.png", exif=exif)
    pixels = images(0, path=str(tmp_path), size=8, channels=1, augment=False).train.fetch(np.array([0]), 0)["inputs"]
    assert pixels[0, 0, :3].max() == 0
    assert pixels[0, 0, 5:].min() == 1


@pytest.mark.parametrize("valid", ["valid", "val", "validation", "test"])
def test_folders_choose_the_split(tmp_path, valid):
    for k in range(3):
        _write(tmp_path / "train" / "a" / f"{k}.png", (k, 0, 0))
        _write(tmp_path / "train" / "b" / f"{k}.png", (0, k, 0))
    _write(tmp_path / valid / "b" / "0.png", (0, 0, 9))
    data = images(0, path=str(tmp_path), size=4)
    assert _labels(data.train) == [0, 0, 0, 1, 1, 1]
    assert _labels(data.valid) == [1]


def test_a_lone_train_folder_is_split_by_file(tmp_path):
    for name in ("a", "b"):
        for k in range(20):
            _write(tmp_path / "train" / name / f"{k}.png", (k, 0, 0))
    data = images(0, path=str(tmp_path), size=4, valid_fraction=0.3)
    assert len(data.train) + len(data.valid) == 40
    assert 4 <= len(data.valid) <= 20
    assert not set(data.train.paths) & set(data.valid.paths)
    assert set(_labels(data.valid)) == {0, 1}


def test_an_unreadable_image_is_named_when_it_is_read(tmp_path):
    for name in ("a", "b"):
        for k in range(2):
            _write(tmp_path / name / f"{k}.png", (0, 0, 0))
    whole = (tmp_path / "a" / "0.png").read_bytes()
    for broken in (b"no image", b"", whole[: len(whole) // 2]):
        for k in range(2):
            (tmp_path / "a" / f"{k}.png").write_bytes(broken)
        data = images(0, path=str(tmp_path))
        with pytest.raises(InputError, match=r"the image .*a.[01]\.png cannot be read"):
            data.train.fetch(np.array([0]), 0)


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ([], None, "Give path=FOLDER"),
        ([], "missing", "No such file"),
        (["a.png"], "a.png", "is no folder"),
        ([], ".", r"no images in .*PATH/CLASS/NAME\.png"),
        (["a.png", "b.png"], ".", "no images in"),
        (["cat/a.png", "dog/notes.txt"], ".", "the class 'dog' in .* has no images"),
        (["cat/a.png", "cat/b.png"], ".", "has only one class, 'cat'"),
        (["cat/a.png", "dog/a.png"], ".", "no class in .* has a second image"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], ".", "has the class 'c', which .*train lacks"),
        (["train/a/1.png", "train/b/1.png", "val/x.txt"], ".", "no images in .*val"),
    ],
)
def test_refused(tmp_path, monkeypatch, files, path, message):
    monkeypatch.chdir(tmp_path)
    for name in files:
        if name.endswith(".png"):
            _write(tmp_path / name, (0, 0, 0))
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("text")
    with pytest.raises(InputError, match=message):
        images(0, path=path)
