"""What `${interpolations}` would come to, measured before they are put in.

Thirty lines that each repeat the next one ten times stand for more text than the world has paper. Each place of a
configuration is measured once: an interpolation counts what its target counts.
"""

from __future__ import annotations

import re
from typing import Any

from ava.errors import InputError

MAX_RESOLVED = 1 << 20
"""Characters and values of a configuration once its interpolations are put in."""

_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_DECODED = re.compile(r"\$\{\s*oc\.decode\s*:\s*\$\{\s*oc\.env\s*:([^${}\\]*)\}\s*\}")
_RESOLVERS = {"oc.env", "now", "python_version"}


def check_interpolations(raw: Any) -> None:
    """Estimate the size of a configuration once resolved, without resolving it.

    Args:
        raw: plain nested dicts and lists with their `${...}` still in them.

    Raises:
        InputError: too large, in a circle, nested in one another, or through a resolver that is not offered.
    """
    _Sizes(raw).size((), raw)


class _Sizes:
    """The resolved size of each place in a tree, each computed once."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.memo: dict[tuple[str, ...], int | None] = {}

    def size(self, path: tuple[str, ...], node: Any) -> int:
        if path in self.memo:
            known = self.memo[path]
            if known is None:
                raise InputError("its ${interpolation} leads back to itself.", key=".".join(path), value=node)
            return known
        self.memo[path] = None
        if isinstance(node, dict):
            total = 1 + sum(self.size((*path, str(key)), child) for key, child in node.items())
        elif isinstance(node, list):
            total = 1 + sum(self.size((*path, str(i)), child) for i, child in enumerate(node))
        else:
            total = self._leaf(path, node)
        if total > MAX_RESOLVED:
            problem = f"stands for more than {MAX_RESOLVED:,} characters once its ${{interpolations}} are put in."
            raise InputError(problem, key=".".join(path) or "the configuration", value="...")
        self.memo[path] = total
        return total

    def _leaf(self, path: tuple[str, ...], node: Any) -> int:
        if not isinstance(node, str) or "${" not in node:
            return 1 + (len(node) if isinstance(node, str) else 0)
        text = _DECODED.sub("", node)
        total = 1 + len(node)
        for body in _INNERMOST.findall(text):
            resolver, colon, _ = body.partition(":")
            if not colon:
                target = _absolute(path, body.strip())
                total += self.size(target, self._find(target))
            elif resolver.strip() not in _RESOLVERS:
                raise InputError(
                    f"the resolver {resolver.strip()!r} is not offered; there are: {', '.join(sorted(_RESOLVERS))}, "
                    "and oc.decode directly around oc.env.", key=".".join(path), value=node,
                )  # fmt: skip
        if "${" in _INNERMOST.sub("", text):
            raise InputError("an ${interpolation} cannot stand inside another.", key=".".join(path), value=node)
        return total

    def _find(self, path: tuple[str, ...]) -> Any:
        node = self.raw
        for step in path:
            if isinstance(node, dict):
                node = next((child for key, child in node.items() if str(key) == step), None)
            elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
                node = node[int(step)]
            else:
                return None
        return node


def _absolute(path: tuple[str, ...], reference: str) -> tuple[str, ...]:
    """The place that a reference written at `path` means: `a.b`, `a[b]`, or `.b` beside it, `..b` one level up."""
    name = reference.lstrip(".")
    up = len(reference) - len(name)
    steps = tuple(step.strip("'\"") for step in re.split(r"[.\[\]]+", name) if step)
    return (*path[: max(len(path) - up, 0)], *steps) if up else steps
