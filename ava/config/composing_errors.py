"""What Hydra and OmegaConf refuse, told as bad input like any other."""

from __future__ import annotations

import re
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from ava.errors import InputError, nearest

_NO_OPTION = re.compile(r"In '(?P<file>[^']+)': Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'")
_OPTIONS = re.compile(r"Available options in '[^']+':(?P<names>.*?)(?:Config search path|$)")
_MERGE = re.compile(r"Error merging override (?P<key>[^=]+)=(?P<value>.*) \(Cannot merge DictConfig with ListConfig\)")
_NO_KEY = re.compile(r"Could not delete from config\. '(?P<key>[^']+)' does not exist")


def in_our_words(error: Exception) -> InputError:
    """Retell why a configuration cannot be composed.

    Args:
        error: what Hydra or OmegaConf raised.
    """
    text = " ".join(str(error).split())
    if found := _NO_OPTION.search(text):
        options = _OPTIONS.search(text)
        names = [name for name in options["names"].split() if not name.startswith("_")] if options else []
        problem = f"{found['file']}.yaml chooses what there is not; `{found['group']}` can be: {', '.join(names)}."
        return InputError(problem, key=found["group"], value=found["option"], hint=nearest(found["option"], names))
    if found := _NO_KEY.search(text):
        return InputError(f"`~{found['key']}`: there is no such key to remove.")
    if found := _MERGE.search(f"{text} ({_first(error.__cause__)})" if error.__cause__ else text):
        return InputError("must be a list, not a section.", key=found["key"].lstrip("+"), value=found["value"])
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return InputError(f"{str(error).splitlines()[0]}.", key=str(error.full_key), value=_value(error))
    cause = error.__cause__
    reason = text.replace("++", "") or type(error).__name__
    return InputError(f"the configuration cannot be composed: {reason}{f' ({_first(cause)})' if cause else ''}")


def _value(error: OmegaConfBaseException) -> Any:
    """The value at fault, as it was written."""
    node = getattr(error.parent_node, "_get_node", lambda key: None)(error.key)
    return getattr(node, "_value", lambda: "?")()


def _first(cause: BaseException) -> str:
    return (str(cause) or type(cause).__name__).splitlines()[0]
