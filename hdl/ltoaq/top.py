"""The LT-OAQ accelerator: AXI4-Lite registers, an AXI4 manager, an interrupt."""

from amaranth import ClockDomain, ClockSignal, DomainRenamer, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.axi4 import Axi4, AxiLite, forward
from nibblecore.hdl.bus.reader import AxiReader
from nibblecore.hdl.bus.registers import AxiLiteRegisters
from nibblecore.hdl.bus.streams import choose, share
from nibblecore.hdl.bus.writer import AxiWriter
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.controller import Controller

from .core import Core
from .registers import ID, REGISTERS, config_words

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """The machine of docs/ltoaq.md.

    One clock, ``clk``, and a reset, ``rst``: synchronous, active high. A reset forgets bursts under way, so memory must be reset with it.

    Latency: ARVALID for a descriptor five cycles after the write of PUSH took effect, if nothing is at work; ``irq`` in the cycle in which
    DONE counts. Throughput: a command at a time; what one takes is in `Controller` and `Core`.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    s_axi : In(AxiLite)
        The registers (docs/ltoaq-registers.md), 7 address bits.
    m_axi : Out(Axi4)
        Memory: 32-bit addresses, no IDs or (``config.id_bits``) all 0, so each channel is answered in order; INCR bursts of whole beats,
        aligned to them, within 4 KiB.
        Bursts have up to 64 beats; 16 reads and 8 writes are under way. A write that has been answered is seen by every later read.
    irq : Out(1)
        Level: some enabled bit of IRQ_STATUS is set.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        super().__init__(
            {"s_axi": In(AxiLite(REGISTERS.address_bits)), "m_axi": Out(Axi4(config.bus_bytes, config.id_bits)), "irq": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.registers = registers = AxiLiteRegisters(REGISTERS)
        m.submodules.reader = reader = AxiReader(config.bus_bytes)
        m.submodules.writer = writer = AxiWriter(config.bus_bytes)
        core = Core(config)
        m.submodules.controller = controller = Controller(config, core.settle_cycles)
        m.domains.core = ClockDomain(local=True)
        m.d.comb += [ClockSignal("core").eq(ClockSignal()), ResetSignal("core").eq(ResetSignal() | controller.unit_reset)]
        m.submodules.core = DomainRenamer("core")(core)

        m.d.comb += [forward(registers.s_axi, self.s_axi), forward(reader.m_axi, self.m_axi), forward(writer.m_axi, self.m_axi)]
        self._commands(m, controller, core, registers)
        self._buses(m, controller, core, reader, writer)
        self._registers(m, controller, core, registers)
        return m

    def _commands(self, m: Module, controller: Controller, core: Core, registers: AxiLiteRegisters) -> None:
        for name in ("descriptor", "gemm", "a", "w", "target", "raw0", "raw1", "shape", "q_max", "start"):
            m.d.comb += getattr(core, name).eq(getattr(controller, name))
        for name in ("idle", "malformed", "run_overflow", "summary"):
            m.d.comb += getattr(controller, name).eq(getattr(core, name))
        control = registers.control_strobe
        m.d.comb += [
            controller.push.eq(registers.push_strobe),
            controller.address.eq(registers.push),
            controller.clear_error.eq(control & registers.control.clear_error),
            controller.clear_counters.eq(control & registers.control.clear_counters),
            controller.soft_reset.eq(control & registers.control.soft_reset),
            controller.window_base.eq(registers.window_base),
            controller.window_last.eq(registers.window_last),
        ]

    def _buses(self, m: Module, controller: Controller, core: Core, reader: AxiReader, writer: AxiWriter) -> None:
        owns = controller.owns_bus
        choose(m, owns, [core.read_command, controller.read_command], reader.command)
        choose(m, owns, [core.write_command, controller.write_command], writer.command)
        choose(m, owns, [core.write_data, controller.write_data], writer.data)
        share(m, owns, reader.data, [core.read_data, controller.read_data])
        m.d.comb += [
            reader.abandon.eq(controller.abandon),
            writer.abandon.eq(controller.abandon),
            reader.clear.eq(controller.clear_bus),
            writer.clear.eq(controller.clear_bus),
            controller.read_error.eq(reader.error),
            controller.write_error.eq(writer.error),
            controller.read_idle.eq(reader.idle),
            controller.write_idle.eq(writer.idle),
        ]

    def _registers(self, m: Module, controller: Controller, core: Core, registers: AxiLiteRegisters) -> None:
        words = config_words(self.config)
        overflowed = Signal()
        m.d.comb += [
            registers.id.eq(ID),
            registers.config0.eq(words[0]),
            registers.config1.eq(words[1]),
            registers.status.busy.eq(controller.busy),
            registers.status.queue_full.eq(controller.queue_full),
            registers.status.error.eq(controller.error_code != 0),
            registers.status.overflow.eq(overflowed),
            registers.status.queue_level.eq(controller.queue_level),
            registers.error.code.eq(controller.error_code),
            registers.error.sequence.eq(controller.error_sequence),
            registers.done.eq(controller.done_count),
            registers.abandoned.eq(controller.abandoned_count),
            registers.irq_status_set.done.eq(controller.command_done),
            registers.irq_status_set.error.eq(controller.failed),
            self.irq.eq((registers.irq_status.as_value() & registers.irq_enable.as_value()).any()),
        ]
        clear = Signal()
        m.d.comb += clear.eq(controller.clear_counters)
        for register, event in (
            (registers.cycles, controller.busy),
            (registers.array_cycles, core.working),
            (registers.load_stalls, core.waits_for_operands),
            (registers.output_stalls, core.waits_for_room),
        ):
            counter = Signal(32, name=f"{event.name}_cycles")
            m.d.sync += counter.eq(Mux(clear, 0, counter + event))
            m.d.comb += register.eq(counter)
        # The core holds its flag until the next command starts; clearing must not find it again.
        noticed = Signal()
        m.d.sync += noticed.eq(core.summary.overflow)
        with m.If(core.summary.overflow & ~noticed):
            m.d.sync += overflowed.eq(1)
        with m.Elif(controller.clear_error):
            m.d.sync += overflowed.eq(0)
