"""A machine's registers in SystemRDL 2.0, from the map that the hardware is built from."""

from collections.abc import Iterable
from typing import Any

from nibblecore.hdl.bus.register_map import Access, Field, Register
from nibblecore.hdl.cambriconq import registers as cambriconq_registers
from nibblecore.hdl.cambriconq.program import errors as cambriconq_errors
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq import registers as ltoaq_registers
from nibblecore.hdl.ltoaq.command import errors as ltoaq_errors
from nibblecore.sim.machines import Config

from .origin import origin

__all__ = ["WHOLE", "system_rdl"]

WHOLE = "value"
"""The field of a register that is one number of 32 bits: SystemRDL knows no register without a field."""

_PROPERTIES = {
    Access.R: "sw = r; hw = w;",
    Access.RW: "sw = rw; hw = r;",
    Access.W: "sw = w; hw = r; swmod;",
    Access.RW1C: "sw = rw; hw = r; onwrite = woclr; hwset;",
}


def system_rdl(config: Config, name: str) -> str:
    """``<name>.rdl``: one address map, `name`.

    What SystemRDL cannot say stands in its description: an access that a register does not allow is answered SLVERR.
    """
    registers = ltoaq_registers.REGISTERS if isinstance(config, LtoaqConfig) else cambriconq_registers.REGISTERS
    codes: Iterable[Any] = ltoaq_errors.ErrorCode if isinstance(config, LtoaqConfig) else cambriconq_errors.ErrorCode
    lines = [f"// {line}" for line in origin(config, f"{name}.rdl", "registers in SystemRDL")]
    lines += ["", f"enum {name}_error {{"]
    width = registers["ERROR"].field("code").width
    lines += [f"    {code.name} = {width}'d{int(code)} {{ desc = {_quoted(code.cause)}; }};" for code in codes]
    lines += ["};", "", f"addrmap {name} {{", f"    name = {_quoted(registers.name)};", f"    desc = {_quoted(_RULES)};"]
    lines += ["    default regwidth = 32;", "    default accesswidth = 32;", "    littleendian;"]
    for register in registers:
        lines += ["", "    reg {", f"        desc = {_quoted(register.description)};"]
        for field in register.fields or (Field(WHOLE, 0, 31),):
            encode = f" encode = {name}_error;" if (register.name, field.name) == ("ERROR", "code") else ""
            lines.append(
                f"        field {{ {_field(register, field)}{encode} }} {field.name}[{field.high}:{field.low}]{_reset(register, field)};"
            )
        lines.append(f"    }} {register.name} @ 0x{register.offset:02X};")
    return "\n".join([*lines, "};"]) + "\n"


_RULES = (
    "32-bit words on AXI4-Lite. A partial write, an address that holds no register, and an access that the register does not allow "
    "are answered SLVERR and change nothing."
)


def _field(register: Register, field: Field) -> str:
    description = f"desc = {_quoted(field.description)}; " if field.description else ""
    return description + _PROPERTIES[register.access]


def _reset(register: Register, field: Field) -> str:
    return f" = 0x{field.reset:x}" if register.access in (Access.RW, Access.RW1C) else ""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
