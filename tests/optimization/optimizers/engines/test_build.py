"""The kernel cache: private, whole, shared between processes, and never in the way."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import warnings

import pytest
import torch

from ava.optimization import get_optimizer
from ava.optimization.optimizers.engines.native import build
from ava.optimization.optimizers.engines.native import engine as native

SOURCE = 'extern "C" int answer() { return 42; }\n'
GXX = shutil.which("g++")
needs_compiler = pytest.mark.skipif(GXX is None, reason="there is no g++")
CACHES = (build.find_compiler, build.cache_directory, build._own_directory)


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has built nothing yet, with a cache of its own."""
    monkeypatch.setenv("AVA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AVA_CXX", raising=False)
    monkeypatch.setattr(native, "_KERNELS", {})
    monkeypatch.setattr(build, "_TOLD", [])
    for cache in CACHES:
        cache.cache_clear()
    yield
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """A compiler that counts: one line for each library it made."""
    log, script = tmp_path / "calls", tmp_path / "counting-g++"
    log.touch()
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo made >> {log}\nexec {GXX} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("AVA_CXX", str(script))
    return lambda: len(log.read_text().splitlines())


def kernels(tmp_path):
    return tmp_path / "cache" / "ava" / "kernels"


def refusing(tmp_path, monkeypatch, lines):
    script = tmp_path / "broken-g++"
    script.write_text("#!/bin/sh\n" + lines)
    script.chmod(0o755)
    monkeypatch.setenv("AVA_CXX", str(script))


@needs_compiler
def test_a_library_is_built_once_into_a_private_directory(tmp_path, calls):
    assert build.load(SOURCE).answer() == 42
    assert build.load(SOURCE).answer() == 42
    assert calls() == 1
    assert stat.S_IMODE(kernels(tmp_path).stat().st_mode) == 0o700
    (library,) = kernels(tmp_path).iterdir()  # and no folder it was built in
    assert stat.S_IMODE(library.stat().st_mode) == 0o700
    build.load(SOURCE.replace("42", "43"))
    assert calls() == 2


@needs_compiler
@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o777], ids=oct)
def test_a_directory_that_others_can_write_to_is_not_used(mode, tmp_path):
    kernels(tmp_path).mkdir(parents=True)
    kernels(tmp_path).chmod(mode)
    with pytest.warns(RuntimeWarning, match="others may write to it"):
        assert build.load(SOURCE).answer() == 42
    assert not list(kernels(tmp_path).iterdir())
    assert build.cache_directory() != kernels(tmp_path)
    assert stat.S_IMODE(build.cache_directory().stat().st_mode) == 0o700


@needs_compiler
def test_a_link_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    kernels(tmp_path).parent.mkdir(parents=True)
    kernels(tmp_path).symlink_to(elsewhere)
    with pytest.warns(RuntimeWarning, match="are not kept"):
        assert build.load(SOURCE).answer() == 42
    assert not list(elsewhere.iterdir())


@needs_compiler
def test_a_directory_of_someone_else_is_not_used(tmp_path, monkeypatch):
    kernels(tmp_path).mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: kernels(tmp_path).stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="are not kept"):
        assert build.cache_directory() != kernels(tmp_path)


@needs_compiler
def test_a_directory_that_cannot_be_made_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.warns(RuntimeWarning, match="built anew in each process"):
        assert build.load(SOURCE).answer() == 42


@needs_compiler
def test_a_directory_that_can_only_be_read_serves_what_it_has(tmp_path, monkeypatch, calls):
    build.load(SOURCE)
    make = build.tempfile.TemporaryDirectory

    def refuse(**options):
        if options.get("dir") == kernels(tmp_path):
            raise PermissionError(13, "Permission denied")
        return make(**options)

    monkeypatch.setattr(build.tempfile, "TemporaryDirectory", refuse)
    assert build.load(SOURCE).answer() == 42
    assert calls() == 1
    with pytest.warns(RuntimeWarning, match="Permission denied"):
        assert build.load(SOURCE.replace("42", "43")).answer() == 43
    assert build.load(SOURCE.replace("42", "44")).answer() == 44  # a second warning would be an error
    assert calls() == 3


def plant(content):
    return b"\x7fELF" + b"\0" * 5000


def truncate(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]


def empty(content):
    return b""


@needs_compiler
@pytest.mark.parametrize("damage", [plant, truncate, flip, empty])
def test_a_damaged_library_is_built_anew(damage, tmp_path, calls):
    """A process that had loaded it would not read it again, so the first one here is another."""
    in_another_process(tmp_path)
    (library,) = kernels(tmp_path).iterdir()
    library.write_bytes(damage(library.read_bytes()))
    assert build.load(SOURCE).answer() == 42
    assert calls() == 2


@needs_compiler
@pytest.mark.parametrize("kind", ["writable", "link", "folder"])
def test_a_library_that_another_could_have_put_there_is_not_loaded(kind, tmp_path, calls):
    in_another_process(tmp_path)
    (library,) = kernels(tmp_path).iterdir()
    if kind == "writable":
        library.chmod(0o777)
    else:
        library.rename(tmp_path / "moved.so")
        library.symlink_to(tmp_path / "moved.so") if kind == "link" else library.mkdir(mode=0o700)
    if kind == "folder":  # nothing can be renamed over it
        with pytest.warns(RuntimeWarning, match="are not kept"):
            assert build.load(SOURCE).answer() == 42
        return
    assert build.load(SOURCE).answer() == 42
    assert stat.S_IMODE(library.lstat().st_mode) == 0o700
    assert not library.is_symlink()
    assert calls() == 2


LOAD = "from ava.optimization.optimizers.engines.native import build; print(build.load({source!r}).answer())"


def start(source=SOURCE):
    command = [sys.executable, "-c", LOAD.format(source=source)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_another_process(tmp_path):
    process = start()
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("42\n", "")


@needs_compiler
def test_two_processes_build_at_once(tmp_path, calls):
    processes = [start() for _ in range(2)]
    assert [process.communicate(timeout=60) for process in processes] == [("42\n", "")] * 2
    assert len(list(kernels(tmp_path).iterdir())) == 1
    assert 1 <= calls() <= 2


@needs_compiler
def test_another_process_calls_no_compiler(tmp_path, calls):
    in_another_process(tmp_path)
    assert calls() == 1
    in_another_process(tmp_path)
    assert build.load(SOURCE).answer() == 42
    assert calls() == 1


def trained(engine="auto"):
    params = [torch.nn.Parameter(torch.linspace(-1, 1, n, dtype=torch.float64)) for n in (5, 300)]
    optimizer = get_optimizer("lion")(params, lr=0.1, cautious=True, weight_decay=0.1, engine=engine)
    for step in range(5):
        for p in params:
            p.grad = torch.cos(p.detach() + step)
        optimizer.step()
    return params


def expect_one_notice(reason):
    """Two kernels are wanted, one notice comes, and the numbers are the reference's."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        params = trained()
        p = torch.nn.Parameter(torch.ones(2))
        p.grad = torch.ones(2)
        get_optimizer("adafactor")([p]).step()
    assert [warning.category for warning in told] == [RuntimeWarning]
    assert reason in str(told[0].message)
    assert "plain torch operations" in str(told[0].message)
    assert all(torch.equal(p, q) for p, q in zip(params, trained("reference"), strict=True))


def test_without_a_compiler_the_reference_runs(monkeypatch):
    monkeypatch.setenv("AVA_CXX", "none")
    expect_one_notice("no C++ compiler was found under the name AVA_CXX=none")


def test_a_compiler_that_fails_is_told_once(monkeypatch, tmp_path):
    refusing(tmp_path, monkeypatch, "echo internal error: segmentation fault >&2\nexit 1\n")
    expect_one_notice("segmentation fault")
    assert not list(kernels(tmp_path).iterdir())


def test_a_compiler_that_makes_nothing(monkeypatch, tmp_path):
    refusing(tmp_path, monkeypatch, "exit 0\n")
    with pytest.warns(RuntimeWarning):
        assert all(torch.equal(p, q) for p, q in zip(trained(), trained("reference"), strict=True))


def test_a_compiler_that_makes_no_library(monkeypatch, tmp_path):
    refusing(tmp_path, monkeypatch, '[ "$1" = --version ] && exit\nfor last; do :; done\necho no library > "$last"\n')
    expect_one_notice("cannot be built or loaded")


def test_a_file_that_is_no_program(monkeypatch, tmp_path):
    refusing(tmp_path, monkeypatch, "")
    (tmp_path / "broken-g++").write_bytes(b"\x00\x01")
    expect_one_notice("does not run")


def test_a_user_who_makes_warnings_errors_gets_one(monkeypatch):
    monkeypatch.setenv("AVA_CXX", "none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            trained()
