"""The Cambricon-Q accelerator: AXI4-Lite registers, an AXI4 manager, an interrupt, an engine beside the memory."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.axi4 import Axi4, AxiLite, forward
from nibblecore.hdl.bus.read_arbiter import AxiReadArbiter
from nibblecore.hdl.bus.reader import AxiReader
from nibblecore.hdl.bus.registers import AxiLiteRegisters
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.bus.writer import AxiWriter
from nibblecore.hdl.cambriconq.control.controller import Controller
from nibblecore.hdl.cambriconq.update.dram_port import DramPort
from nibblecore.hdl.config import CambriconqConfig

from .core import Core
from .registers import ID, PHASES, REGISTERS, config_words

__all__ = ["BURST", "BURSTS", "Accelerator"]

BURST, BURSTS = 4, 16
"""Beats of a burst and bursts under way of a reader: few beats in all, because the next instruction's come after them, but many
bursts, because elements far apart take one each.
"""


class Accelerator(wiring.Component):
    """The machine of docs/cambriconq.md (paper, Figure 5).

    One clock, ``clk``, and a reset, ``rst``: synchronous, active high. A reset forgets bursts under way and open rows, so memory must be
    reset with it, its banks precharged. NBin and SB take their first line as many cycles later as they have lines.

    Latency: ARVALID for a program's first instruction five cycles after the write of START took effect; ``irq`` the cycle after STATUS.busy
    fell. Throughput: a program at a time, of it up to three instructions at once, one in each `Lane`; what one takes is in the units.

    Parameters
    ----------
    config : CambriconqConfig
        Of a size that the hardware takes, ValueError otherwise.

    Members
    -------
    s_axi : In(AxiLite)
        The registers (docs/cambriconq-registers.md), 7 address bits.
    m_axi : Out(Axi4)
        Memory: 32-bit addresses, no IDs or (``config.id_bits``) all 0, so each channel is answered in order; INCR bursts of whole beats,
        aligned to them, within 4 KiB.
        A read has up to `BURST` beats, or 64 bytes for an instruction, and `BURSTS` + 1 are under way, without an engine 2 · `BURSTS` + 1.
        A write has up to 64 beats, with byte strobes, and 8 are under way. A write that has been answered is seen by every later read.
    dram : Out(DramPort)
        The same memory's banks, for the engine beside it; only if ``config.dram``. The two are never used at the same time: while a row is
        open no burst is under way. The engine keeps the times of `DramConfig` and cannot be held off: memory obeys every command and
        column access in its cycle, answers a read in the next, and is not refreshed during a WGSTORE. What is written to a row is seen
        over ``m_axi`` once it has been precharged; what is written over ``m_axi`` is seen in rows activated after its answer.
    irq : Out(1)
        Level: some enabled bit of IRQ_STATUS is set.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        if not 8 <= config.rows <= 128 or not 16 <= config.cols <= min(64, 2 * config.rows):
            raise ValueError(
                f"config {config.name!r}: the hardware takes 8 to 128 rows and 16 to 64 columns, at most two for each row, "
                f"not {config.rows} and {config.cols}"
            )
        self.config = config
        super().__init__(
            {
                "s_axi": In(AxiLite(REGISTERS.address_bits)),
                "m_axi": Out(Axi4(config.bus_bytes, config.id_bits)),
                "irq": Out(1),
                **({"dram": Out(DramPort(config.dram))} if config.dram else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.registers = registers = AxiLiteRegisters(REGISTERS)
        m.submodules.fetch_reader = fetch_reader = AxiReader(config.bus_bytes, max_outstanding=1)
        m.submodules.reader = reader = AxiReader(config.bus_bytes, max_burst=BURST, max_outstanding=BURSTS)
        m.submodules.writer = writer = AxiWriter(config.bus_bytes)
        m.submodules.controller = controller = Controller(config)
        m.submodules.core = core = Core(config)
        connect(m, controller.read_command, fetch_reader.command)
        connect(m, fetch_reader.data, controller.read_data)
        connect(m, core.read_command, reader.command)
        connect(m, reader.data, core.read_data)
        connect(m, core.write_command, writer.command)
        connect(m, core.write_data, writer.data)
        readers = [fetch_reader, reader]
        if config.dram:
            wiring.connect(m, wiring.flipped(self.dram), core.dram)
        else:
            m.submodules.update_reader = update_reader = AxiReader(config.bus_bytes, max_burst=BURST, max_outstanding=BURSTS)
            connect(m, core.update_command, update_reader.command)
            connect(m, update_reader.data, core.update_data)
            m.d.comb += core.update_error.eq(update_reader.error)
            readers.append(update_reader)
        m.submodules.read_arbiter = arbiter = AxiReadArbiter(config.bus_bytes, len(readers), depth=len(readers) * BURSTS)
        clear = registers.start_strobe & ~controller.busy
        for port, source in zip(arbiter.ports, readers, strict=True):
            wiring.connect(m, source.m_axi, port)
            m.d.comb += source.clear.eq(clear)
        m.d.comb += [forward(registers.s_axi, self.s_axi), forward(arbiter.m_axi, self.m_axi), forward(writer.m_axi, self.m_axi)]
        m.d.comb += [
            *(lane.eq(source) for lane, source in zip(core.instructions, controller.instructions, strict=True)),
            *(lane.eq(source) for lane, source in zip(controller.codes, core.codes, strict=True)),
            core.starts.eq(controller.starts),
            controller.ended.eq(core.ended),
            core.constants.eq(controller.constants),
            controller.start.eq(registers.start_strobe),
            controller.entry.eq(registers.start),
            controller.stop.eq(registers.control_strobe & registers.control.stop),
            controller.memory_bytes.eq(registers.memory_last + 1),
            controller.read_error.eq(fetch_reader.error),
            core.read_error.eq(reader.error),
            core.write_error.eq(writer.error),
            writer.clear.eq(clear),
            core.writer_idle.eq(writer.idle),
        ]
        self._registers(m, controller, core, registers)
        return m

    def _registers(self, m: Module, controller: Controller, core: Core, registers: AxiLiteRegisters) -> None:
        words = config_words(self.config)
        control = registers.control_strobe
        ran = Signal()
        dropped = Signal()
        clear = Signal()
        m.d.sync += ran.eq(controller.busy)
        with m.If(registers.start_strobe & controller.busy):
            m.d.sync += dropped.eq(1)
        with m.Elif(core.clear_flags):
            m.d.sync += dropped.eq(0)
        m.d.comb += [
            core.clear_flags.eq(control & registers.control.clear_flags),
            clear.eq(control & registers.control.clear_counters),
            registers.id.eq(ID),
            registers.config0.eq(words[0]),
            registers.config1.eq(words[1]),
            registers.status.busy.eq(controller.busy),
            registers.status.nan.eq(core.nan_seen),
            registers.status.infinity.eq(core.infinity_seen),
            registers.status.dropped.eq(dropped),
            registers.error.code.eq(controller.code),
            registers.index.eq(controller.index),
            registers.started.eq(controller.started),
            registers.irq_status_set.done.eq(ran & ~controller.busy),
            self.irq.eq((registers.irq_status.as_value() & registers.irq_enable.as_value()).any()),
        ]
        phases = [(getattr(registers, f"phase{n}"), controller.busy & (controller.phase == n)) for n in range(PHASES)]
        for register, event in ((registers.cycles, controller.busy), (registers.array_cycles, core.array_working), *phases):
            counter = Signal(32, name=f"counter{register.name if isinstance(register, Signal) else ''}")
            m.d.sync += counter.eq(Mux(clear, 0, counter + event))
            m.d.comb += register.eq(counter)
