"""How a kernel reads and writes each slot: the Triton text beside every codec's torch twin."""

from __future__ import annotations

from dataclasses import dataclass

from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.int8 import BIAS, BLOCK, LAST

TYPES = {
    "torch.float32": "tl.float32", "torch.float64": "tl.float64", "torch.bfloat16": "tl.bfloat16",
    "torch.float16": "tl.float16",
}  # fmt: skip


@dataclass(frozen=True)
class Store:
    """One slot's place in memory.

    Attributes:
        slot: what is stored.
        codec: "dense", "bf16", "int8" or "factored".
        column: the table's column of its first part; the others follow.
        place: its number among the slots that each parameter has of its own, which chooses its random bits.
    """

    slot: Slot
    codec: str
    column: int
    place: int

    @property
    def draws(self) -> bool:
        """Whether it is rounded at random."""
        return self.codec in ("bf16", "int8")

    def parts(self, storage: str) -> list[tuple[str, str]]:
        """Key in the state and Triton type of each part; `storage` is the parameter's own type."""
        name = self.slot.name
        if self.codec == "factored":
            factors = [(f"{name}.row", "tl.float32"), (f"{name}.column", "tl.float32")]
            return [*factors, (f"{name}.sign", "tl.uint8")] if self.slot.signed else factors
        if self.codec == "int8":
            return [(name, "tl.int8" if self.slot.signed else "tl.uint8"), (f"{name}.scale", "tl.float32")]
        return [(name, {"bf16": "tl.bfloat16", "dense": storage}[self.codec])]

    def pointers(self, storage: str, *, is_aligned: bool) -> list[str]:
        """The statements that name the parts' addresses: s0_NAME, s1_NAME, ..."""
        return [
            f"s{k}_{self.slot.name} = {address(self.column + k, kind, is_aligned=is_aligned)}"
            for k, (_, kind) in enumerate(self.parts(storage))
        ]

    def read(self, number: str) -> str:
        """The expression of the elements' values, where `i` are their places and `inside` which there are."""
        name = self.slot.name
        if self.codec == "factored":
            value = (
                f"tl.load(s0_{name} + i // square, mask=inside, other=0.0).to({number})"
                f" * tl.load(s1_{name} + i % square, mask=inside, other=0.0).to({number})"
            )
            if not self.slot.signed:
                return value
            sign = f"(tl.load(s2_{name} + i // 8, mask=inside, other=0).to(tl.int32) >> (i % 8)) & 1"
            return f"({value}) * (2 * ({sign}) - 1).to({number})"
        if self.codec == "int8":
            scale = f"tl.load(s1_{name} + i // {BLOCK}, mask=inside, other=0.0)"
            code = f"tl.load(s0_{name} + i, mask=inside, other=0)"
            return f"decode_8bit({code}, {scale}, {BIAS[self.slot.signed]}).to({number})"
        return f"tl.load(s0_{name} + i, mask=inside, other=0.0).to({number})"

    def write(self, value: str, storage: str, chunk: int) -> list[str]:
        """The statements that store the elements of a piece of `chunk`, from a block of the type computed in."""
        name = self.slot.name
        noise = f"half_of(draw_{self.place // 2}, {self.place % 2})"
        if self.codec == "bf16":
            rounded = f"round_at_random({value}.to(tl.float32), {noise}, 16, 3.3895313892515355e38)"
            return [f"tl.store(s0_{name} + i, {rounded}.to(tl.bfloat16), mask=written)"]
        if self.codec == "int8":
            return self._write_8bit(value, noise, chunk)
        if self.codec == "dense":
            return [f"tl.store(s0_{name} + i, nearest({value}, {storage}), mask=written)"]
        return self._write_signs(value, chunk) if self.slot.signed else []

    def _write_8bit(self, value: str, noise: str, chunk: int) -> list[str]:
        name, blocks = self.slot.name, chunk // BLOCK
        code = f"encode_8bit(wide_{name}, over_{name}, {noise}, {BIAS[self.slot.signed]}, {LAST[self.slot.signed]})"
        return [
            f"wide_{name} = tl.where(inside, {value}.to(tl.float32), 0.0)",
            f"most_{name} = tl.max(tl.reshape(tl.abs(wide_{name}), ({blocks}, {BLOCK})), 1)",
            f"over_{name} = 1.0 / tl.where(most_{name} > 1e-38, most_{name}, 1e-38)",
            f"over_{name} = tl.reshape(tl.broadcast_to(over_{name}[:, None], ({blocks}, {BLOCK})), ({chunk},))",
            f"tl.store(s0_{name} + i, ({code}).to({self.parts('')[0][1]}), mask=written)",
            f"block_{name} = begin // {BLOCK} + tl.arange(0, {blocks})",
            f"tl.store(s1_{name} + block_{name}, most_{name}, mask=unless(skipped, block_{name} * {BLOCK} < n))",
        ]

    def _write_signs(self, value: str, chunk: int) -> list[str]:
        """Eight signs a byte, the lowest bit first; the magnitudes are summed by a kernel of their own."""
        name, num_bytes = self.slot.name, chunk // 8
        flags = f"tl.reshape((inside & ({value} > 0)).to(tl.int32), ({num_bytes}, 8))"
        return [
            f"signs_{name} = tl.sum({flags} << tl.arange(0, 8)[None, :], 1)",
            f"byte_{name} = begin // 8 + tl.arange(0, {num_bytes})",
            f"tl.store(s2_{name} + byte_{name}, signs_{name}.to(tl.uint8), mask=unless(skipped, byte_{name} * 8 < n))",
        ]


def address(column: int, kind: str, *, is_aligned: bool = False) -> str:
    """The expression of an address in the table; where it is aligned, 16 bytes are loaded at once."""
    pointer = f"tl.load(t + {column}).to(tl.pointer_type({kind}))"
    return f"tl.multiple_of({pointer}, 16)" if is_aligned else pointer
