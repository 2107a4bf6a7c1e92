"""How the kernel reads and writes each slot: the C++ beside every codec's torch twin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.factored import square_shape
from ava.optimization.optimizers.storage.int8 import BLOCK

C_TYPES = {"torch.float32": "float", "torch.float64": "double", "torch.bfloat16": "bf16", "torch.float16": "fp16"}

_TYPES = {"float": torch.float32, "bf16": torch.bfloat16, "int8_t": torch.int8, "uint8_t": torch.uint8}


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
    def is_factored(self) -> bool:
        """Whether the slot is decoded and encoded a block at a time, outside the loop over elements."""
        return self.codec == "factored"

    @property
    def draws(self) -> bool:
        """Whether it is rounded at random."""
        return self.codec in ("bf16", "int8")

    @property
    def is_exact(self) -> bool:
        """Whether what is written is what will be read, up to the parameter's own type."""
        return self.codec == "dense"

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Key in the state and C++ type of each part; `D` is the parameter's own type."""
        name = self.slot.name
        if self.codec == "factored":
            factors = [(f"{name}.row", "float"), (f"{name}.column", "float")]
            return [*factors, (f"{name}.sign", "uint8_t")] if self.slot.signed else factors
        if self.codec == "int8":
            return [(name, "int8_t" if self.slot.signed else "uint8_t"), (f"{name}.scale", "float")]
        return [(name, {"bf16": "bf16", "dense": "D"}[self.codec])]

    def parts_of(self, parameter: Tensor) -> Iterator[tuple[str, torch.dtype, int]]:
        """Key, type and length of each part that stores a parameter's slot."""
        size = parameter.numel()
        rows, columns = square_shape(size)
        lengths = {"row": rows, "column": columns, "sign": -(-size // 8), "scale": -(-size // BLOCK), "": size}
        for key, c_type in self.parts:
            dtype = parameter.dtype if c_type == "D" else _TYPES[c_type]
            yield key, dtype, lengths[key.partition(".")[2]]

    def pointer(self, part: int = 0) -> str:
        """The C++ expression of a part's address."""
        return f"(({self.parts[part][1]}*)t[{self.column + part}])"

    def declaration(self) -> list[str]:
        """What the loops call the slot's parts."""
        name = self.slot.name
        if self.is_factored:
            return []
        lines = [f"{self.parts[0][1]}* __restrict s_{name} = {self.pointer()};"]
        return [*lines, f"float* scale_{name} = {self.pointer(1)};"] if self.codec == "int8" else lines

    def read(self) -> str:
        """The expression of an element's value."""
        name = self.slot.name
        if self.is_factored:
            magnitude = f"row_{name} * (T)col_{name}[q]"
            return f"flip((T)({magnitude}), sign_{name}[j])" if self.slot.signed else magnitude
        return f"decode_8bit<T>(s_{name}[i], was_{name})" if self.codec == "int8" else f"get<T>(s_{name}, i)"

    def write(self, value: str) -> str:
        """The statement that stores an element, for slots whose elements are stored by themselves."""
        if self.codec == "bf16":
            return f"put_at_random<T>(s_{self.slot.name}, i, {value}, {self.noise});"
        return f"put<T>(s_{self.slot.name}, i, {value});"

    def write_late(self, buffer: str) -> str:
        """The statement that stores an element of an 8-bit slot, once its block's scale is known."""
        name = self.slot.name
        return f"s_{name}[i] = encode_8bit<T, {self.parts[0][1]}>({buffer}[j], over_{name}, {self.noise});"

    @property
    def noise(self) -> str:
        """The expression of an element's 16 random bits; two slots share 32."""
        return f"half_of(draw_{self.place // 2}, {self.place % 2})"

    def before_block(self, size: int) -> list[str]:
        """What a factored slot reads before a block's elements."""
        if not self.slot.signed:
            return []
        name = self.slot.name
        return [f"u32 sign_{name}[{size}]; expand_signs(sign_{name}, {self.pointer(2)}, b, n);"]

    def before_row(self, reads: bool, writes: bool) -> list[str]:
        """What a factored slot's row gives to its elements, and gathers from them."""
        name = self.slot.name
        read = f"const T row_{name} = (T){self.pointer()}[row]; const float* col_{name} = {self.pointer(1)} + col;"
        gather = f"T sum_{name} = 0; T* __restrict add_{name} = cols_{self.place} + col;"
        return ([read] if reads else []) + ([gather] if writes else [])

    def gather(self, value: str) -> list[str]:
        """What a factored slot adds up of an element's new value."""
        name = self.slot.name
        return [f"const T size_{name} = std::fabs((T){value});", f"sum_{name} += size_{name};",
                f"add_{name}[q] += size_{name};"]  # fmt: skip

    def after_row(self) -> str:
        """Where a row's sum goes."""
        return f"rows_{self.place}[row - square_first] += (double)sum_{self.slot.name};"

    def after_block(self, buffer: str) -> str:
        """Store a factored slot's signs, where it has any."""
        return f"store_signs<T>({self.pointer(2)}, {buffer}, b, n);"
