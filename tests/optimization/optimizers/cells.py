"""The shared options one by one, each at values that do something: what the matrix of all optimizers is made of."""

from __future__ import annotations

from typing import Any

SHARED: dict[str, dict[str, Any]] = {
    "bf16": {"state": "bf16"},
    "int8": {"state": "int8"},
    "factored": {"state": "factored"},
    "cautious": {"cautious": True},
    "grams": {"grams": True},
    "atan2": {"atan2": True},
    "orthograd": {"orthograd": True},
    "ademamix": {"ademamix": True, "ademamix_alpha": 2.0, "ademamix_beta": 0.99},
    "centralise": {"centralise": True},
    "normalise": {"normalise": True},
    "standardise": {"standardise": True},
    "denoise": {"denoise": True},
    "noise": {"noise": 0.01},
    "coupled": {"decay": "coupled", "weight_decay": 0.1},
    "decoupled": {"decay": "decoupled", "weight_decay": 0.1},
    "cautious_decay": {"decay": "cautious", "weight_decay": 0.1},
    "stochastic_rounding": {"stochastic_rounding": True},
    "lookahead": {"lookahead": 2},
    "max_norm": {"max_norm": 0.5},
    "unit_norm": {"unit_norm": True},
    "non_negative": {"non_negative": True},
}
"""Options that are part of a sentence or of how its state is stored: engines speak them."""

WHOLE: dict[str, dict[str, Any]] = {
    "fused_backward": {"fused_backward": True},
    "sam_rho": {"sam_rho": 0.05},
    "sam_adaptive": {"sam_rho": 0.5, "sam_adaptive": True},
    "layer_lr_decay": {"layer_lr_decay": 0.8},
    "groups": {"groups": ({"match": "*bias", "weight_decay": 0.0}, {"match": "layers.2.*", "cautious": False})},
}
"""Options of the whole optimizer."""
