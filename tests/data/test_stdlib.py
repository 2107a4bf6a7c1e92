"""The standard library: which files, and which bytes are measured."""

from __future__ import annotations

import platform
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from ava.data.files import held_out
from ava.data.source import IGNORED, TokenSpec
from ava.data.stdlib import _names, stdlib

ROOT = Path(sysconfig.get_paths()["stdlib"])


def test_validation_is_the_held_out_files_byte_for_byte():
    data = stdlib(0)
    assert data.spec == TokenSpec(256, 256, "byte")
    names = sorted(_names(ROOT, tests=False))
    held = [name for name, is_held in zip(names, held_out(names, 1 / 20), strict=True) if is_held]
    targets = data.valid.fetch(np.arange(len(data.valid)), 0)["targets"].numpy()
    text = targets[targets != IGNORED].astype(np.uint8).tobytes()
    assert text == b"\0".join((ROOT / name).read_bytes() for name in held)
    assert f"{len(text):,} for validation" in data.description
    assert platform.python_version() in data.description


def test_files():
    names = set(_names(ROOT, tests=False))
    assert {"os.py", "json/decoder.py", "asyncio/tasks.py"} <= names
    assert not any("site-packages" in name or "/test/" in f"/{name}" for name in names)
    assert len(set(_names(ROOT, tests=True))) > len(names)


def test_the_split_does_not_depend_on_the_seed():
    first, second = stdlib(0), stdlib(1, context=64)
    assert first.description == second.description
    assert len(second.valid) == pytest.approx(4 * len(first.valid), abs=4)


def test_packed_it_has_the_same_bytes_in_the_same_order():
    stream, packed = stdlib(0), stdlib(0, packing="documents")
    held = [split.fetch(np.arange(len(split)), 0)["targets"].numpy() for split in (stream.valid, packed.valid)]
    texts = [targets[targets != IGNORED].astype(np.uint8).tobytes() for targets in held]
    assert texts[0].replace(b"\0", b"") == texts[1].replace(b"\0", b"")
    names = sorted(_names(ROOT, tests=False))
    assert len(texts[0]) - len(texts[1]) == sum(held_out(names, 1 / 20)) - 1
