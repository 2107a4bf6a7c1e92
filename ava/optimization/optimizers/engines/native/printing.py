"""A node as C++; what is true or false is 1 or 0, which vectorises where `bool` does not."""

from __future__ import annotations

from collections.abc import Callable

from ava.optimization.optimizers.engines.tracing.graph import Node

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "=="}
_CALLS = {
    "sqrt": "std::sqrt", "exp": "std::exp", "log": "log_of", "cos": "cos_of", "abs": "std::fabs",
    "sign": "sign_of", "max": "larger", "min": "smaller", "atan2": "angle_of", "pow": "std::pow", "mod": "mod_of",
}  # fmt: skip


def expression(node: Node, name: Callable[[Node], str], number: str) -> str:
    """The C++ expression of an operation.

    Args:
        node: the operation.
        name: what an argument is called.
        number: the C++ type it is computed in.
    """
    arguments = [name(argument) for argument in node.args]
    if node.op == "div" and node.extent != "uniform" and node.args[1].extent == "uniform":
        return f"{arguments[0]} * (({number})1 / {arguments[1]})"  # one division for all elements
    if node.op in _INFIX:
        plain = f"{arguments[0]} {_INFIX[node.op]} {arguments[1]}"
        return f"{plain} ? ({number})1 : ({number})0" if node.is_flag else plain
    if node.op == "neg":
        return f"-{arguments[0]}"
    if node.op == "where":
        return f"{arguments[0]} != 0 ? ({number}){arguments[1]} : ({number}){arguments[2]}"
    calls = ", ".join(f"({number}){argument}" for argument in arguments)
    return f"{_CALLS[node.op]}({calls})"
