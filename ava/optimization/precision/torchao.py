"""torchao, where it is installed: imported when it is needed, and without its chatter."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ava.errors import InputError

INSTALL = "Install it with: pip install 'ava[quant]'"


def import_torchao(module: str, needed_for: str) -> Any:
    """Import a module of torchao.

    Args:
        module: its dotted name.
        needed_for: what asks for it, as a message says it.

    Raises:
        InputError: it is not installed, or is a version without that module.
    """
    # Its own kernels are not used here; loading them warns on every processor that they were not built for.
    os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")
    try:
        with quiet():
            return importlib.import_module(module)
    except ImportError as error:
        problem = f"{needed_for} needs torchao ({' '.join(str(error).split())[:200]})."
        raise InputError(problem, hint=INSTALL) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within it nothing is logged or warned of: torchao imports parts of itself as late as in a call."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
