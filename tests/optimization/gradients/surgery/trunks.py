"""Networks with a shared trunk, and what surgery on them must give, worked out plainly: one `autograd.grad` a loss."""

import torch
from torch import nn

from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.objectives import Objectives
from ava.optimization.gradients.surgery.rows import Rows


class Trunk(nn.Module):
    """Three heads on one trunk, and a layer that nobody uses."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 8), nn.Tanh())
        self.heads = nn.ModuleList(nn.Linear(8, 2) for _ in range(3))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.trunk(x)
        return [head(features) for head in self.heads]


def samples(num: int = 8) -> torch.Tensor:
    """(num, 6)."""
    return torch.randn(num, 6, generator=torch.Generator().manual_seed(5))


def losses_of(net: nn.Module, x: torch.Tensor, scales: tuple[float, ...] = (1.0, 2.0, 3.0)) -> dict[str, torch.Tensor]:
    """Sums over samples of three objectives that pull apart."""
    goals = (1.0, -1.0, 0.5)
    outputs = zip(net(x), goals, scales, strict=True)
    return {f"o{i}": scale * (out.float() - goal).square().sum() for i, (out, goal, scale) in enumerate(outputs)}


def gradients(parameters: list[torch.Tensor]) -> list[torch.Tensor | None]:
    """What lies in `.grad`."""
    return [None if p.grad is None else p.grad.clone() for p in parameters]


def reconciled(
    losses: dict[str, torch.Tensor], parameters: list[torch.Tensor], name: str, weight: float, step: int = 0,
    seed: int = 0,
) -> list[torch.Tensor | None]:  # fmt: skip
    """One gradient for each parameter, by the book."""
    rows = [
        torch.autograd.grad(weight * loss, parameters, retain_graph=True, allow_unused=True) for loss in losses.values()
    ]
    columns = list(zip(*rows, strict=True))
    shared = [k for k, column in enumerate(columns) if sum(g is not None for g in column) > 1]
    zero = [torch.zeros_like(p) for p in parameters]
    filled = [[zero[k] if row[k] is None else row[k] for k in shared] for row in rows]
    values = weight * torch.stack([loss.detach().double() for loss in losses.values()])
    method, of_heads = bind(name), torch.ones(len(rows), dtype=torch.float64)
    if needs(name) == "rows":
        combined = method(Rows(filled, step=step, seed=seed))
    else:
        wide = torch.stack([torch.cat([g.double().reshape(-1) for g in row]) for row in filled])
        weights = method(Objectives(wide @ wide.T, values, step, seed))
        of_heads = weights if needs(name) == "losses" else of_heads
        combined = [
            sum(w * row[k] for w, row in zip(weights.tolist(), filled, strict=True)) for k in range(len(shared))
        ]
    result: list[torch.Tensor | None] = [None] * len(parameters)
    for k, column in enumerate(columns):
        for owner, g in enumerate(column):
            if g is not None:
                result[k] = combined[shared.index(k)] if k in shared else float(of_heads[owner]) * g
    return result


def assert_same(found: list[torch.Tensor | None], wanted: list[torch.Tensor | None], rtol: float = 1e-4) -> None:
    """Equal to rounding, absent where absent."""
    for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert (one is None) == (other is None), index
        if one is not None:
            torch.testing.assert_close(
                one, other.to(one.dtype), rtol=rtol, atol=rtol * float(other.abs().max()) + 1e-12
            )
