"""The command descriptor, as one table: the controller's layout, the driver's packing and the manual's page come from it."""

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["DESCRIPTOR_BYTES", "DESCRIPTOR_WORDS", "FIELDS", "HEADER_BYTES", "DescriptorField", "Opcode", "pack", "unpack"]

DESCRIPTOR_WORDS = 32
DESCRIPTOR_BYTES = 4 * DESCRIPTOR_WORDS
HEADER_BYTES = 32


class Opcode(IntEnum):
    GEMM = 1
    QUANTIZE = 2
    THRESHOLD_GRAD = 3


@dataclass(frozen=True)
class DescriptorField:
    """`width` bits at bit `low` of 32-bit word `word`. Bits that no field covers are reserved."""

    name: str
    word: int
    low: int
    width: int


def _tensor(name: str, word: int) -> tuple[DescriptorField, ...]:
    return (
        DescriptorField(f"{name}_eight_bit", word, 0, 1),
        DescriptorField(f"{name}_signed", word, 1, 1),
        DescriptorField(f"{name}_k", word, 2, 2),
        DescriptorField(f"{name}_threshold", word, 8, 8),
        DescriptorField(f"{name}_header", word + 1, 0, 32),
        DescriptorField(f"{name}_codes", word + 2, 0, 32),
        DescriptorField(f"{name}_runs", word + 3, 0, 32),
        DescriptorField(f"{name}_run_stride", word + 4, 0, 32),
    )


FIELDS: tuple[DescriptorField, ...] = (
    DescriptorField("opcode", 0, 0, 8),
    DescriptorField("a_transposed", 0, 8, 1),
    DescriptorField("w_transposed", 0, 9, 1),
    DescriptorField("raw_output", 0, 10, 1),
    DescriptorField("relu", 0, 11, 1),
    DescriptorField("interrupt", 0, 12, 1),
    DescriptorField("m", 1, 0, 32),
    DescriptorField("n", 2, 0, 32),
    DescriptorField("k", 3, 0, 32),
    *_tensor("a", 4),
    *_tensor("w", 9),
    *_tensor("out", 14),
    DescriptorField("raw0_address", 19, 0, 32),
    DescriptorField("raw0_pitch", 20, 0, 32),
    DescriptorField("raw1_address", 21, 0, 32),
    DescriptorField("raw1_pitch", 22, 0, 32),
    DescriptorField("alpha", 23, 0, 32),
    DescriptorField("multiplier", 24, 0, 8),
    DescriptorField("shift", 24, 8, 6),
    DescriptorField("a_group", 25, 0, 8),
    DescriptorField("w_group", 25, 8, 8),
    DescriptorField("k_tiles", 26, 0, 16),
)

_BY_NAME = {field.name: field for field in FIELDS}


def pack(**values: int) -> bytes:
    """The 128 bytes of a descriptor; fields not given are 0.

    Raises KeyError for an unknown field, ValueError for a value that does not fit its field.
    """
    words = [0] * DESCRIPTOR_WORDS
    for name, value in values.items():
        field = _BY_NAME[name]
        if not 0 <= value < 1 << field.width:
            raise ValueError(f"descriptor field {name} has {field.width} bits; {value} does not fit")
        words[field.word] |= value << field.low
    return b"".join(word.to_bytes(4, "little") for word in words)


def unpack(raw: bytes) -> dict[str, int]:
    """All fields of a descriptor."""
    if len(raw) != DESCRIPTOR_BYTES:
        raise ValueError(f"a descriptor has {DESCRIPTOR_BYTES} bytes, not {len(raw)}")
    words = [int.from_bytes(raw[4 * i : 4 * i + 4], "little") for i in range(DESCRIPTOR_WORDS)]
    return {field.name: words[field.word] >> field.low & (1 << field.width) - 1 for field in FIELDS}
