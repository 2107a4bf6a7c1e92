"""A quantized model as one safetensors file, which no machine has to trust and every machine can pack for itself.

    head.norm.weight                 what is not quantized, under its own name
    blocks.0.up.weight  .scale ...   the plain tensors of a quantized layer
    metadata "ava"                   JSON: the scheme, the quantized layers, which names share a tensor

What kernels compute from is packed for a processor; the file is not, so it can be written on one and read on another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.precision.quantization.arithmetic import Plain
from ava.optimization.precision.quantization.backends import build_layer, choose_backend, put_layers, with_layers
from ava.optimization.precision.quantization.device import usable_device
from ava.optimization.precision.quantization.scheme import Scheme

_KEY, _FORMAT = "ava", 1


def stored_tensors(
    model: nn.Module, plain: Mapping[str, Plain] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a file holds of a model, each shared tensor once.

    Args:
        model: the model.
        plain: its quantized layers' tensors.

    Returns:
        name -> tensor; further name -> the name that its tensor is stored under.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    inside = _prefixes(model, [model.get_submodule(name) for name in plain or {}])
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or name.startswith(inside):
            continue
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and identity in seen:
            aliases[name] = seen[identity]
            continue
        seen[identity] = name
        tensors[name] = tensor.detach()
    for name, parts in (plain or {}).items():
        tensors |= {_parameter(name, part): tensor for part, tensor in parts.items()}
    return tensors, aliases


def write_model(path: Path, model: nn.Module, plain: Mapping[str, Plain], scheme: Scheme | None) -> None:
    """Write a model.

    Args:
        path: the file; replaced if it is there.
        model: the model, quantized or not.
        plain: its quantized layers' tensors.
        scheme: of all of them; None where there are none.

    Raises:
        InputError: the model keeps what is no tensor, or the file cannot be written.
    """
    from safetensors.torch import save

    _check_state(model, plain)
    tensors, aliases = stored_tensors(model, plain)
    about = {
        "format": _FORMAT,
        "scheme": None if scheme is None else asdict(scheme),
        "layers": list(plain),
        "aliases": aliases,
    }
    # `save_file` would make a file that only its owner may read.
    content = save({name: t.cpu().contiguous() for name, t in tensors.items()}, {_KEY: json.dumps(about)})
    try:
        path.write_bytes(content)
    except OSError as error:
        hint = "Give a file in a directory that is there and can be written to."
        raise InputError(
            f"the file cannot be written ({error.strerror}).", key="path", value=path, hint=hint
        ) from error


def _check_state(model: nn.Module, plain: Mapping[str, Plain]) -> None:
    inside = _prefixes(model, [model.get_submodule(name) for name in plain])
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) and not name.startswith(inside):
            problem = f"{name} of the model is no tensor but a {type(value).__name__}, which the file cannot hold."
            hint = "Let the module keep it in a buffer, or give it to the constructor."
            raise InputError(problem, hint=hint)


def load_quantized(
    model: nn.Module, path: Path | str, *, backend: str = "auto", device: torch.device | str = "cpu"
) -> nn.Module:
    """Read what `ModelQuantizer.save` or `write_model` wrote. Nothing in the file is executed.

    Args:
        model: built as the stored one was, with any weights; used up.
        path: the file.
        backend: as `ModelQuantizer` takes it.
        device: where the result is to run.

    Returns:
        The stored model, in evaluation mode.

    Raises:
        InputError: the file is none of those, or is of another model.
    """
    about, tensors = _read(Path(path))
    device = usable_device(device)
    model = model.to(device)
    layers: dict[str, nn.Module] = {}
    if about["scheme"] is not None:
        scheme = about["scheme"]
        chosen = choose_backend(backend, scheme, device)
        for name in about["layers"]:
            plain = _take_out(tensors, name)
            _check_layer(model, name, plain, scheme, Path(path))
            layers[name] = build_layer(plain, scheme, chosen, device)
    elif backend != "auto":
        raise InputError(f"{path} holds no quantized layers, which a backend would run.", key="backend", value=backend,
                         hint="Leave it out.")  # fmt: skip
    if "" in layers:
        return with_layers(model, layers).eval()
    put_layers(model, layers)
    _load_rest(model, tensors | {alias: tensors[name] for alias, name in about["aliases"].items()}, layers, Path(path))
    return model.eval()


def _take_out(tensors: dict[str, Tensor], layer: str) -> Plain:
    """The tensors of one layer, out of those of a file."""
    prefix = _parameter(layer, "")
    names = [key for key in tensors if key.startswith(prefix) and "." not in key[len(prefix) :]]
    return {key[len(prefix) :]: tensors.pop(key) for key in names}


def _parameter(layer: str, part: str) -> str:
    return f"{layer}.{part}" if layer else part


def _prefixes(model: nn.Module, modules: list[nn.Module]) -> tuple[str, ...]:
    """How the names of the modules' tensors begin, under all names that they have."""
    inside = {id(module) for module in modules}
    names = (name for name, module in model.named_modules(remove_duplicate=False) if id(module) in inside)
    return tuple(_parameter(name, "") for name in names)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = _checked(json.loads((file.metadata() or {})[_KEY]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except InputError as error:
        raise InputError(f"{path} {error.problem}", hint=error.hint) from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        problem = f"{path} holds no quantized model ({' '.join(str(error).split())[:200]})."
        raise InputError(problem, hint="Give a file that `ModelQuantizer.save` or `ava export` wrote.") from error
    return about, tensors


def _checked(about: dict[str, Any]) -> dict[str, Any]:
    """What a file says of itself, with its scheme.

    Raises:
        InputError: it is of a newer version.
    """
    if about["format"] > _FORMAT:
        raise InputError("was written by a newer version of Ava.", hint="Install that version.")
    scheme = None if about["scheme"] is None else Scheme(**about["scheme"])
    return {"scheme": scheme, "layers": list(about["layers"]), "aliases": dict(about["aliases"])}


def _check_layer(model: nn.Module, name: str, plain: Plain, scheme: Scheme, path: Path) -> None:
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        layer = None
    stored = plain["weight"].shape[0], plain["weight"].shape[1] * 8 // scheme.bits
    if not isinstance(layer, nn.Linear) or (layer.out_features, layer.in_features) != stored:
        problem = f"{path} has a linear layer {name or '(the model itself)'} with {stored[1]} inputs and {stored[0]}"
        raise InputError(f"{problem} outputs, the model has none there.", hint="Build the model that was quantized.")


def _load_rest(model: nn.Module, tensors: dict[str, Tensor], layers: Mapping[str, nn.Module], path: Path) -> None:
    prefixes = _prefixes(model, list(layers.values()))
    try:
        missing, strangers = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the model: {' '.join(str(error).split())[:300]}") from error
    missing = [name for name in missing if not name.startswith(prefixes)]
    if missing or strangers:
        problem = f"{path} is of another model: it lacks {missing[:3]} and has {strangers[:3]} besides."
        raise InputError(problem, hint="Build the model that was quantized.")
