"""A node as C++."""

from __future__ import annotations

from collections.abc import Callable

from ava.optimization.optimizers.engines.native.graph import Node

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "=="}
_CALLS = {
    "sqrt": "std::sqrt", "exp": "std::exp", "log": "std::log", "cos": "std::cos", "abs": "std::fabs",
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
        plain = [f"({number}){a}" if x.is_flag else a for a, x in zip(arguments, node.args, strict=True)]
        return f"{plain[0]} {_INFIX[node.op]} {plain[1]}"
    if node.op == "neg":
        return f"-{arguments[0]}"
    if node.op == "where":
        test = arguments[0] if node.args[0].is_flag else f"({arguments[0]} != 0)"
        return f"{test} ? ({number}){arguments[1]} : ({number}){arguments[2]}"
    calls = ", ".join(f"({number}){argument}" for argument in arguments)
    return f"{_CALLS[node.op]}({calls})"
