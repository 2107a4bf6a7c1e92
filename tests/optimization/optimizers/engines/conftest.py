"""Which engines ran."""

from __future__ import annotations

import pytest

from ava.optimization.optimizers.engines import conduct, fused, reference
from ava.optimization.optimizers.engines.native import engine as native

ENGINES = {native: "native", fused: "fused", reference: "reference"}


@pytest.fixture
def spoken(monkeypatch):
    """The engines that ran, in order, each with its batch: a silent fallback would pass every comparison."""
    seen = []
    choose = conduct.engine_for

    def watch(batch, choice):
        engine = choose(batch, choice)
        if choice == "auto":
            seen.append((ENGINES[engine], batch))
        return engine

    monkeypatch.setattr(conduct, "engine_for", watch)
    return seen
