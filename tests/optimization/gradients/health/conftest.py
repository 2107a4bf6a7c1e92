"""The same tests with the kernel and without a compiler."""

import shutil

import pytest

from ava.optimization.gradients.health import native
from ava.optimization.optimizers.engines.native import build


@pytest.fixture(params=["kernel", "torch"])
def route(request, monkeypatch):
    """With "torch" there is no compiler, and the notice has been given."""
    if request.param == "kernel":
        if shutil.which("g++") is None:
            pytest.skip("there is no g++")
        yield request.param
        return
    monkeypatch.setenv("AVA_CXX", "none")
    monkeypatch.setattr(build, "_TOLD", ["before"])
    for cache in (native.library, build.find_compiler):
        cache.cache_clear()
    yield request.param
    for cache in (native.library, build.find_compiler):
        cache.cache_clear()
