"""A node as Triton."""

from __future__ import annotations

from collections.abc import Callable

from ava.optimization.optimizers.engines.tracing.graph import Node

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "=="}
_CALLS = {
    "exp": "tl.exp", "log": "tl.log", "cos": "tl.cos", "abs": "tl.abs", "max": "larger", "min": "smaller",
    "atan2": "angle_of", "pow": "power", "mod": "mod_of",
}  # fmt: skip


def expression(node: Node, name: Callable[[Node], str], number: str) -> str:
    """The Triton expression of an operation.

    Args:
        node: the operation.
        name: what an argument is called.
        number: the Triton type it is computed in.
    """
    arguments = [name(argument) for argument in node.args]
    if node.op == "where":
        test = arguments[0] if is_flag(node.args[0]) else f"({arguments[0]} != 0)"
        return f"tl.where({test}, {_plain(node.args[1], arguments[1], number)}, {arguments[2]})"
    plain = [_plain(argument, text, number) for argument, text in zip(node.args, arguments, strict=True)]
    if node.op == "div" and node.extent != "uniform" and node.args[1].extent == "uniform":
        return f"{plain[0]} * (1.0 / {plain[1]})"  # one division for all elements
    if node.op in _INFIX:
        compared = f"{plain[0]} {_INFIX[node.op]} {plain[1]}"
        return f"({compared}).to({number})" if node.is_flag and not is_flag(node) else compared
    if node.op == "neg":
        return f"-{plain[0]}"
    if node.op == "sign":
        return f"sign_of({plain[0]}, {number})"
    if node.op == "sqrt":
        # The plain root of a float32 is approximate and takes the smallest numbers for 0.
        return f"tl.sqrt_rn({plain[0]})" if number == "tl.float32" else f"tl.sqrt({plain[0]})"
    return f"{_CALLS[node.op]}({', '.join(plain)})"


def is_flag(node: Node) -> bool:
    """Whether a node's value is held as true or false: what is not one value an element is held as a number."""
    return node.is_flag and node.extent == "element"


def _plain(node: Node, text: str, number: str) -> str:
    return f"{text}.to({number})" if is_flag(node) else text


def constant(node: Node, number: str) -> str:
    """A number, in full precision; a bare literal would be a float32."""
    value = f"float('{node.name}')" if node.name in ("inf", "-inf", "nan") else node.name
    return f"tl.full((), {value}, {number})"
