"""Register maps in plain Python: one description for the RTL (`registers.AxiLiteRegisters`), for drivers and for the documents."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = ["Access", "Field", "Register", "RegisterMap", "markdown"]

WORD_BITS = 32


class Access(Enum):
    """What the host may do with a register, and what the hardware sees of it."""

    R = "R"
    """Read only; the hardware drives it."""
    RW = "RW"
    """Stored; the hardware sees the value."""
    W = "W"
    """Write only; the hardware sees a pulse with the value."""
    RW1C = "RW1C"
    """Bits set by the hardware, cleared by writing 1 to them."""

    @property
    def readable(self) -> bool:
        return self is not Access.W

    @property
    def writable(self) -> bool:
        return self is not Access.R


@dataclass(frozen=True)
class Field:
    """Some bits of a register.

    Parameters
    ----------
    name : str
        Lower case, a Python identifier.
    low, high : int
        Least and most significant bit, both included.
    description : str
        What it means, one line.
    reset : int
        Value after reset (RW and RW1C registers).
    """

    name: str
    low: int
    high: int
    description: str = ""
    reset: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"field name {self.name!r} is not a lower-case identifier")
        if not 0 <= self.low <= self.high < WORD_BITS:
            raise ValueError(f"field {self.name}: bits {self.high}:{self.low} do not lie in 31:0")
        if not 0 <= self.reset < 1 << self.width:
            raise ValueError(f"field {self.name}: reset value {self.reset} does not fit {self.width} bits")

    @property
    def width(self) -> int:
        return self.high - self.low + 1

    @property
    def mask(self) -> int:
        """The field's bits in the register."""
        return ((1 << self.width) - 1) << self.low

    def extract(self, word: int) -> int:
        """The field's value in a register's `word`."""
        return (word & self.mask) >> self.low

    def insert(self, value: int) -> int:
        """A register's word with this field at `value` and everything else 0."""
        if not 0 <= value < 1 << self.width:
            raise ValueError(f"field {self.name}: {value} does not fit {self.width} bits")
        return value << self.low


@dataclass(frozen=True)
class Register:
    """One 32-bit word.

    Parameters
    ----------
    name : str
        Upper case; in lower case the name of its ports.
    offset : int
        Byte address, a multiple of 4.
    access : Access
    description : str
        What it means, one line.
    fields : tuple of Field
        In ascending order, without overlap. None at all: the register is one number of 32 bits, reset to 0. Bits of no field
        are reserved: written values are ignored; they read as 0 in RW and RW1C registers.
    """

    name: str
    offset: int
    access: Access
    description: str = ""
    fields: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", self.name):
            raise ValueError(f"register name {self.name!r} is not an upper-case identifier")
        if self.offset < 0 or self.offset % 4:
            raise ValueError(f"register {self.name}: offset {self.offset:#x} is not a multiple of 4")
        if len({field.name for field in self.fields}) != len(self.fields):
            raise ValueError(f"register {self.name}: two fields have one name")
        for field, following in zip(self.fields, self.fields[1:], strict=False):
            if following.low <= field.high:
                raise ValueError(f"register {self.name}: fields {field.name} and {following.name} overlap or are out of order")
        if self.reset and self.access not in (Access.RW, Access.RW1C):
            raise ValueError(f"register {self.name}: {self.access.value} registers have no reset value")

    def field(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"register {self.name} has no field {name!r}")

    @property
    def mask(self) -> int:
        """The bits that mean something."""
        return sum(field.mask for field in self.fields) if self.fields else (1 << WORD_BITS) - 1

    @property
    def reset(self) -> int:
        """The word after reset."""
        return self.pack(**{field.name: field.reset for field in self.fields})

    def pack(self, **values: int) -> int:
        """The word with the given fields; fields not given are 0."""
        return sum(self.field(name).insert(value) for name, value in values.items())

    def unpack(self, word: int) -> dict[str, int]:
        """Every field's value in `word`."""
        return {field.name: field.extract(word) for field in self.fields}


@dataclass(frozen=True)
class RegisterMap:
    """The registers of one peripheral.

    Parameters
    ----------
    name : str
        Title of its page.
    registers : tuple of Register
        In ascending order of offset.
    """

    name: str
    registers: tuple[Register, ...]

    def __post_init__(self) -> None:
        if not self.registers:
            raise ValueError(f"{self.name}: a register map needs a register")
        if len({register.name for register in self.registers}) != len(self.registers):
            raise ValueError(f"{self.name}: two registers have one name")
        for register, following in zip(self.registers, self.registers[1:], strict=False):
            if following.offset <= register.offset:
                raise ValueError(f"{self.name}: {register.name} and {following.name} share an offset or are out of order")

    def __getitem__(self, name: str) -> Register:
        for register in self.registers:
            if register.name == name:
                return register
        raise KeyError(f"{self.name} has no register {name!r}")

    def __iter__(self) -> Iterator[Register]:
        return iter(self.registers)

    @property
    def address_bits(self) -> int:
        """Address bits that reach every register, at least 2."""
        return max((self.registers[-1].offset + 3).bit_length(), 2)


_ACCESS_TEXT = {
    Access.R: "read only: writing is an error and changes nothing",
    Access.RW: "read and write",
    Access.W: "write only, acts once a write: reading is an error",
    Access.RW1C: "set by the hardware, cleared bit by bit by writing 1",
}


def markdown(register_map: RegisterMap, command: str) -> str:
    """The page that documents `register_map`; `command` is what regenerates it."""
    lines = [
        f"# {register_map.name} registers",
        "",
        f"<!-- Generated by `{command}`; change the description, not this page. -->",
        "",
        "32-bit words on AXI4-Lite. A partial write (not all four byte strobes), an address that holds no register, and an access",
        "the register does not allow are answered SLVERR and change nothing. Reserved bits read as 0 and ignore what is written.",
        "",
    ]
    lines += [f"- {access.value}: {text}" for access, text in _ACCESS_TEXT.items()]
    lines += ["", "| offset | name | access | reset | |", "| --- | --- | --- | --- | --- |"]
    for register in register_map:
        reset = f"{register.reset:#x}" if register.access in (Access.RW, Access.RW1C) else "–"
        lines.append(f"| 0x{register.offset:02X} | {register.name} | {register.access.value} | {reset} | {register.description} |")
    for register in register_map:
        if register.fields:
            lines += ["", f"## {register.name} (0x{register.offset:02X})", "", "| bits | field | |", "| --- | --- | --- |"]
            for field in register.fields:
                bits = f"{field.high}:{field.low}" if field.width > 1 else f"{field.low}"
                lines.append(f"| {bits} | `{field.name}` | {field.description} |")
    return "\n".join(lines) + "\n"
