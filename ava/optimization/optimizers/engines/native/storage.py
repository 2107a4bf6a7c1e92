"""How the kernel reads and writes each slot: the C++ beside every codec's torch twin."""

from __future__ import annotations

from dataclasses import dataclass

from ava.optimization.optimizers.sentence import Slot

C_TYPES = {"torch.float32": "float", "torch.float64": "double", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


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
        """The expression of an element's value; a factored slot's stands in a buffer."""
        name = self.slot.name
        if self.is_factored:
            return f"in_{name}[j]"
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

    def decode(self, buffer: str) -> str:
        """Statements that fill a block's buffer with a factored slot's values."""
        lines = [f"decode_factored<T>({buffer}, {self.pointer()}, {self.pointer(1)}, t[SQUARE_COLS], b, n);"]
        if self.slot.signed:
            lines.append(f"apply_signs<T>({buffer}, {self.pointer(2)}, b, n);")
        return " ".join(lines)

    def encode(self, buffer: str) -> str:
        """Statements that store a factored slot's signs, and gather its sums for after the pass."""
        sums = f"add_factored<T>(rows_{self.place}, cols_{self.place}, {buffer}, square_first, t[SQUARE_COLS], b, n);"
        return sums + (f" store_signs<T>({self.pointer(2)}, {buffer}, b, n);" if self.slot.signed else "")
