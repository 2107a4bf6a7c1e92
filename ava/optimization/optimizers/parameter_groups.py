"""Param groups from what the user says by parameter name.

    groups=[{"match": "*.bias", "weight_decay": 0.0}, {"match": ["embedding.*", "head.*"], "lr": 1e-4},
            {"match": "blocks.0.*", "freeze": True}, {"match": "head.*", "scheduler": "constant"}], layer_lr_decay=0.9

An entry overrides options of the parameters whose names match one of its globs; of several entries that match, the
later one wins, option by option. `scheduler` (a schedule's name, or a mapping of its name and options) is what a
scheduler of Ava has the group follow in place of its own course. `freeze` takes parameters out of the training.
`layer_lr_decay` lowers the rate from each layer to the one below it. Parameters with the same options share a param
group.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from ava.errors import InputError, nearest
from ava.optimization.learning_rate.course import course_of
from ava.optimization.optimizers.parameter_names import ENDS, depths, end_parameters, has_component
from ava.optimization.options import check
from ava.registry import NonNegativeFloat

Group = dict[str, Any]
Overrides = dict[str, dict[str, Any]]
"""Parameter name -> option -> value."""


def decay_groups(model: nn.Module, weight_decay: float, spare_ends: bool = False) -> list[Group]:
    """Parameter groups in which only tensors of two or more dimensions decay.

    Args:
        model: whose trainable parameters to group.
        weight_decay: the matrices' decay; 0 makes no difference between parameters.
        spare_ends: whether the weights of embeddings and head get `use_muon=False`, and all else `use_muon=True`.

    Returns:
        Groups of (name, parameter) pairs, as `torch.optim.Optimizer` takes them; no group is empty.
    """
    ends = end_parameters(model) if spare_ends else set()
    groups: dict[tuple[bool, bool], Group] = {}
    for is_end, is_matrix in ((False, True), (False, False), (True, True), (True, False)):
        group: Group = {"params": []}
        if weight_decay:
            group["weight_decay"] = weight_decay if is_matrix else 0.0
        if spare_ends:
            group["use_muon"] = not is_end
        groups[is_end, is_matrix or not weight_decay] = group
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups[name in ends, p.ndim >= 2 or not weight_decay]["params"].append((name, p))
    return [group for group in groups.values() if group["params"]]


def expand(
    params: Any,
    defaults: Mapping[str, Any],
    groups: Iterable[Mapping[str, Any]] = (),
    layer_lr_decay: float | None = None,
    annotations: Mapping[str, Any] | None = None,
) -> Any:
    """The param groups that an optimizer is to be built with.

    Args:
        params: tensors, (name, tensor) pairs, or groups of either with options of their own.
        defaults: the options that a group can have, with the optimizer's values.
        groups: entries {match: GLOB or globs, freeze: true, OPTION: value, ...}, of which later ones win.
        layer_lr_decay: factor on `lr` from each layer to the one below it; an entry's `lr` wins over it.
        annotations: option -> what is allowed.

    Returns:
        `params` itself where nothing is to be changed, else a list of groups. Frozen parameters are left out and
        no longer require a gradient. Where matrices have a rule of their own (`use_muon`), the embeddings and heads
        that a group of named parameters has are excepted from it, unless the group or an entry says otherwise.

    Raises:
        InputError: an entry matches nothing, or says what cannot be used; parameters have no names; all are frozen.
    """
    entries = [_check_entry(i, entry, defaults, annotations or {}) for i, entry in enumerate(groups)]
    excepts = defaults.get("use_muon") is True
    if not entries and layer_lr_decay is None and not excepts:
        return params
    given = _groups_of(params)
    pairs = [pair for group in given for pair in group["params"]]
    named = bool(pairs) and all(isinstance(pair, tuple) for pair in pairs)
    if not named:
        if entries or layer_lr_decay is not None:
            key = "groups" if entries else "layer_lr_decay"
            raise InputError(f"{key} needs parameters with names.", hint="Pass model.named_parameters().")
        return given
    names = [name for name, _ in pairs]
    overrides = _match(entries, names)
    frozen = {name for name in names if overrides[name].pop("freeze", False)}
    if len(frozen) == len(names):
        raise InputError("all parameters are frozen: there is nothing to train.", key="groups", value="freeze")
    scales = _layer_scales(names, layer_lr_decay)
    split = [s for group in given for s in _split(group, defaults, overrides, scales, frozen, excepts)]
    for name, parameter in pairs:
        if name in frozen:
            parameter.requires_grad_(False)
    return split


def _groups_of(params: Any) -> list[Group]:
    """What the user passed, as groups whose `params` are lists."""
    listed: list[Any] = [params] if isinstance(params, Tensor | dict) else list(params)
    if not listed:
        return []
    given: list[Group] = listed if isinstance(listed[0], dict) else [{"params": listed}]
    return [{**g, "params": [g["params"]] if isinstance(g["params"], Tensor) else list(g["params"])} for g in given]


def _check_entry(
    index: int, entry: Any, defaults: Mapping[str, Any], annotations: Mapping[str, Any]
) -> tuple[list[str], Group, str]:
    """An entry's globs, its options, and how messages call it."""
    place = f"groups[{index}]"
    if not isinstance(entry, Mapping) or "match" not in entry:
        raise InputError("must be a mapping with `match`, a glob over parameter names.", key=place, value=entry)
    match = [entry["match"]] if isinstance(entry["match"], str) else entry["match"]
    globs = check(f"{place}.match", match, tuple[str, ...])
    known = ["match", "freeze", "scheduler", *defaults]
    options: Group = {}
    for key, value in entry.items():
        if key not in known:
            raise InputError(
                f"no option of a group is called {key!r}; there are: {', '.join(known)}.",
                key=place, value=key, hint=nearest(str(key), known),
            )  # fmt: skip
        annotation = bool if key == "freeze" else annotations.get(key, Any)
        # A rate of 0 is how one leaves a group as it is, for a time.
        annotation = NonNegativeFloat if key == "lr" and value is not None else annotation
        if key == "scheduler":
            course_of(value, {}, f"{place}.scheduler")  # refused here, where the place is known
            options[key] = value
        elif key != "match":
            options[key] = check(f"{place}.{key}", value, annotation)
    return list(globs), options, place


def _match(entries: list[tuple[list[str], Group, str]], names: list[str]) -> Overrides:
    overrides: Overrides = {name: {} for name in names}
    for globs, options, place in entries:
        for glob in globs:
            matched = [name for name in names if fnmatchcase(name, glob)]
            if not matched:
                close = difflib.get_close_matches(glob.replace("*", ""), names, n=3, cutoff=0.0)
                hint = f"The nearest are: {', '.join(close)}."
                raise InputError("matches the name of no parameter.", key=f"{place}.match", value=glob, hint=hint)
            for name in matched:
                overrides[name].update(options)
    return overrides


def _layer_scales(names: list[str], layer_lr_decay: float | None) -> dict[str, float]:
    """Name -> factor on the learning rate."""
    if layer_lr_decay is None:
        return {}
    layers, count = depths(names)
    return {name: layer_lr_decay ** (count - 1 - layer) for name, layer in layers.items()}


def _split(
    group: Group, defaults: Mapping[str, Any], overrides: Overrides, scales: dict[str, float], frozen: set[str],
    excepts: bool,
) -> list[Group]:  # fmt: skip
    """One of the user's groups, cut into groups of parameters with the same options."""
    own = {key: value for key, value in group.items() if key != "params"}
    parts: dict[str, Group] = {}
    for name, parameter in group["params"]:
        if name in frozen:
            continue
        options = dict(own)
        if scales.get(name, 1.0) != 1.0:
            options["lr"] = _scaled(own.get("lr", defaults["lr"]), scales[name])
        if excepts and "use_muon" not in own and has_component(name, ENDS):
            options["use_muon"] = False
        options.update(overrides[name])
        parts.setdefault(repr(options), {**options, "params": []})["params"].append((name, parameter))
    return list(parts.values())


def _scaled(lr: Any, factor: float) -> Any:
    if lr is None:
        raise InputError(
            "layers cannot have learning rates of their own where the optimizer finds the rate itself.",
            key="layer_lr_decay", value=factor, hint="Give lr.",
        )  # fmt: skip
    return lr * factor
