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
    def is_plain(self) -> bool:
        """Whether an element is read and written by itself, without a block around it."""
        return self.codec == "dense"

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

    def decode(self, buffer: str) -> str:
        """Statements that fill a block's buffer with the slot's values."""
        if self.codec == "bf16":
            return f"decode_bf16<T>({buffer}, {self.pointer()}, b, n);"
        if self.codec == "int8":
            function = "decode_int8" if self.slot.signed else "decode_uint8"
            return f"{function}<T>({buffer}, {self.pointer()}, {self.pointer(1)}, b, n);"
        lines = [f"decode_factored<T>({buffer}, {self.pointer()}, {self.pointer(1)}, t[SQUARE_COLS], b, n);"]
        if self.slot.signed:
            lines.append(f"apply_signs<T>({buffer}, {self.pointer(2)}, b, n);")
        return " ".join(lines)

    def encode(self, buffer: str) -> str:
        """Statements that store a block's new values; of factors, what is summed until the pass is over."""
        half = f"{16 * (self.place % 2)}"
        if self.codec == "bf16":
            return f"encode_bf16<T>({self.pointer()}, {buffer}, {self.key}, {half}, b, n);"
        if self.codec == "int8":
            function = "encode_int8" if self.slot.signed else "encode_uint8"
            return f"{function}<T>({self.pointer()}, {self.pointer(1)}, {buffer}, {self.key}, {half}, b, n);"
        sums = f"add_factored<T>(rows_{self.place}, cols_{self.place}, {buffer}, square_first, t[SQUARE_COLS], b, n);"
        signs = f" store_signs<T>({self.pointer(2)}, {buffer}, b, n);" if self.slot.signed else ""
        return sums + signs

    @property
    def key(self) -> str:
        """The C++ name of the stream of random bits."""
        return f"key_{self.place // 2}"
