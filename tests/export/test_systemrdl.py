"""A compiler for SystemRDL reads back from the written maps the registers of the map in Python."""

from typing import Any

import pytest
from nibblecore.hdl.bus.register_map import Access
from nibblecore.hdl.cambriconq import registers as cambriconq_registers
from nibblecore.hdl.cambriconq.program import errors as cambriconq_errors
from nibblecore.hdl.config import CAMBRICONQ, TINY
from nibblecore.hdl.ltoaq import registers as ltoaq_registers
from nibblecore.hdl.ltoaq.command import errors as ltoaq_errors
from nibblecore.sim.export.systemrdl import system_rdl
from systemrdl import RDLCompiler
from systemrdl.messages import MessagePrinter
from systemrdl.rdltypes import AccessType, OnWriteType

MAPS: dict[str, Any] = {
    "ltoaq_tiny": (TINY, ltoaq_registers.REGISTERS, ltoaq_errors.ErrorCode),
    "soc_cambriconq_tiny": (CAMBRICONQ["tiny"], cambriconq_registers.REGISTERS, cambriconq_errors.ErrorCode),
}
SOFTWARE = {Access.R: AccessType.r, Access.RW: AccessType.rw, Access.W: AccessType.w, Access.RW1C: AccessType.rw}


class Loud(MessagePrinter):
    """Warnings fail, too."""

    def emit_message(self, lines):
        raise AssertionError("\n".join(lines))


def compiled(folder, text, name):
    path = folder / f"{name}.rdl"
    path.write_text(text, encoding="utf-8")
    compiler = RDLCompiler(message_printer=Loud())
    compiler.compile_file(str(path))
    return compiler.elaborate(name).top


@pytest.mark.parametrize("name", MAPS)
def test_map_is_the_one_in_python(tmp_path, name):
    config, registers, codes = MAPS[name]
    top = compiled(tmp_path, system_rdl(config, name), name)
    found = {node.inst_name: node for node in top.registers()}
    assert list(found) == [register.name for register in registers]
    for register in registers:
        node = found[register.name]
        assert (node.address_offset, node.size, node.get_property("regwidth")) == (register.offset, 4, 32)
        assert node.get_property("desc") == register.description
        fields = {field.inst_name: (field.low, field.high, field.get_property("desc")) for field in node.fields()}
        wanted = {field.name: (field.low, field.high, field.description or None) for field in register.fields}
        assert fields == (wanted or {"value": (0, 31, None)})
        for field in node.fields():
            stored = register.access in (Access.RW, Access.RW1C)
            reset = register.field(field.inst_name).reset if register.fields else 0
            assert field.get_property("sw") is SOFTWARE[register.access]
            assert field.is_hw_writable == (register.access is Access.R)
            assert field.get_property("hwset") == (register.access is Access.RW1C)
            assert field.get_property("onwrite") is (OnWriteType.woclr if register.access is Access.RW1C else None)
            assert field.get_property("swmod") == (register.access is Access.W)
            assert field.get_property("reset") == (reset if stored else None)
    code = found["ERROR"].get_child_by_name("code").get_property("encode")
    assert {member.name: (member.value, member.rdl_desc) for member in code} == {c.name: (c.value, c.cause) for c in codes}


def test_resets_and_quotes_reach_the_file(tmp_path, monkeypatch):
    """The maps of the machines reset to 0; this one does not."""
    from nibblecore.hdl.bus.register_map import Field, Register, RegisterMap

    described = 'a "quoted" \\ word'
    fields = (Field("low", 0, 3, described, reset=9), Field("code", 8, 15))
    other = RegisterMap("Other", (Register("ERROR", 0x10, Access.RW, described, fields),))
    monkeypatch.setattr(ltoaq_registers, "REGISTERS", other)
    (node,) = compiled(tmp_path, system_rdl(TINY, "other"), "other").registers()
    assert [field.get_property("reset") for field in node.fields()] == [9, 0]
    assert node.get_property("desc") == described
