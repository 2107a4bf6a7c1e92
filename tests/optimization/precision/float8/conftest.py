"""torchao takes seconds to import, which no test has to pay for."""

from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session", autouse=True)
def _torchao():
    if find_spec("torchao") is not None:
        from ava.optimization.precision.torchao import import_torchao

        import_torchao("torchao.float8", "these tests")
