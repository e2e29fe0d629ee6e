"""The Cambricon-Q accelerator: AXI4-Lite registers, an AXI4 manager, an interrupt, an engine beside the memory."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..bus.axi4 import Axi4, AxiLite, forward
from ..bus.reader import AxiReader
from ..bus.registers import AxiLiteRegisters
from ..bus.writer import AxiWriter
from ..config import CambriconqConfig
from .controller import Controller
from .core import Core
from .dram_port import DramPort
from .registers import ID, PHASES, REGISTERS, config_words

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """The machine of docs/cambriconq.md (paper, Figure 5).

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    s_axi : In(AxiLite)
        The registers.
    m_axi : Out(Axi4)
        Memory.
    dram : Out(DramPort)
        The same memory's banks, for the engine beside it; only if ``config.dram``. The two are never used at the same time.
    irq : Out
        Level: some enabled bit of IRQ_STATUS is set.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        super().__init__({
            "s_axi": In(AxiLite(REGISTERS.address_bits)), "m_axi": Out(Axi4(config.bus_bytes)), "irq": Out(1),
            **({"dram": Out(DramPort(config.dram))} if config.dram else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.registers = registers = AxiLiteRegisters(REGISTERS)
        m.submodules.reader = reader = AxiReader(config.bus_bytes)
        m.submodules.writer = writer = AxiWriter(config.bus_bytes)
        m.submodules.controller = controller = Controller(config)
        m.submodules.core = core = Core(config)
        m.d.comb += [forward(registers.s_axi, self.s_axi), forward(reader.m_axi, self.m_axi), forward(writer.m_axi, self.m_axi)]
        if config.dram:
            wiring.connect(m, wiring.flipped(self.dram), core.dram)
        m.d.comb += [
            core.instruction.eq(controller.instruction), core.starts.eq(controller.starts), core.constants.eq(controller.constants),
            controller.done.eq(core.done), controller.unit_code.eq(core.code),
            controller.start.eq(registers.start_strobe), controller.entry.eq(registers.start),
            controller.stop.eq(registers.control_strobe & registers.control.stop), controller.memory_bytes.eq(registers.memory_last + 1),
            controller.read_error.eq(reader.error), controller.write_error.eq(writer.error),
            reader.clear.eq(registers.start_strobe & ~controller.busy), writer.clear.eq(registers.start_strobe & ~controller.busy),
            core.writer_idle.eq(writer.idle),
        ]  # fmt: skip
        wiring.connect(m, core.write_command, writer.command)
        wiring.connect(m, core.write_data, writer.data)
        self._reads(m, controller, core, reader)
        self._registers(m, controller, core, registers)
        return m

    def _reads(self, m: Module, controller: Controller, core: Core, reader: AxiReader) -> None:
        """Instructions and operands share the reader; the controller fetches only while no unit is at work."""
        working = Signal()
        with m.If(controller.starts.any()):
            m.d.sync += working.eq(1)
        with m.Elif(core.done):
            m.d.sync += working.eq(0)
        command = reader.command
        m.d.comb += [
            command.payload.eq(Mux(working, core.read_command.payload, controller.read_command.payload)),
            command.valid.eq(Mux(working, core.read_command.valid, controller.read_command.valid)),
            core.read_command.ready.eq(working & command.ready), controller.read_command.ready.eq(~working & command.ready),
            core.read_data.payload.eq(reader.data.payload), controller.read_data.payload.eq(reader.data.payload),
            core.read_data.valid.eq(working & reader.data.valid), controller.read_data.valid.eq(~working & reader.data.valid),
            reader.data.ready.eq(Mux(working, core.read_data.ready, controller.read_data.ready)),
        ]  # fmt: skip

    def _registers(self, m: Module, controller: Controller, core: Core, registers: AxiLiteRegisters) -> None:
        words = config_words(self.config)
        control, ran, dropped, clear = registers.control_strobe, Signal(), Signal(), Signal()
        m.d.sync += ran.eq(controller.busy)
        with m.If(registers.start_strobe & controller.busy):
            m.d.sync += dropped.eq(1)
        with m.Elif(core.clear_flags):
            m.d.sync += dropped.eq(0)
        m.d.comb += [
            core.clear_flags.eq(control & registers.control.clear_flags), clear.eq(control & registers.control.clear_counters),
            registers.id.eq(ID), registers.config0.eq(words[0]), registers.config1.eq(words[1]),
            registers.status.busy.eq(controller.busy), registers.status.nan.eq(core.nan_seen),
            registers.status.infinity.eq(core.infinity_seen), registers.status.dropped.eq(dropped),
            registers.error.code.eq(controller.code), registers.index.eq(controller.index),
            registers.irq_status_set.done.eq(ran & ~controller.busy),
            self.irq.eq((registers.irq_status.as_value() & registers.irq_enable.as_value()).any()),
        ]  # fmt: skip
        phases = [(getattr(registers, f"phase{n}"), controller.busy & (core.constants.phase == n)) for n in range(PHASES)]
        for register, event in ((registers.cycles, controller.busy), (registers.array_cycles, core.array_working), *phases):
            counter = Signal(32, name=f"counter{register.name if isinstance(register, Signal) else ''}")
            m.d.sync += counter.eq(Mux(clear, 0, counter + event))
            m.d.comb += register.eq(counter)
