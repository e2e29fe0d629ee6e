"""The lanes that carry out instructions, with NBin, SB and NBout between them."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, connect, write_layout
from nibblecore.hdl.cambriconq.buffers.nbout import Nbout
from nibblecore.hdl.cambriconq.buffers.qbc import Qbc
from nibblecore.hdl.cambriconq.control.compute_unit import ComputeUnit
from nibblecore.hdl.cambriconq.control.controller import Constants, Lane
from nibblecore.hdl.cambriconq.control.load_unit import LoadUnit
from nibblecore.hdl.cambriconq.control.store_unit import StoreUnit
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Side
from nibblecore.hdl.cambriconq.update.dram_port import DramPort
from nibblecore.hdl.config import CambriconqConfig

__all__ = ["Core"]


class Core(wiring.Component):
    """Carries out checked instructions, one in each `Lane`. What the caller starts side by side must not conflict (`Controller`).

    Their units, `LoadUnit`, `StoreUnit` and `ComputeUnit`, decode the instructions; here they are only joined. They share NBout's ports and
    the write ports of NBin and SB: computing goes first in NBout, where its timing is fixed, loads wait for its writes, and stores where it
    reads a row of the same parity; in NBin and SB moves go before loads. So no lane waits for one that waits for it.

    After a reset NBin and SB forget their lines, one a cycle; until then they take none.

    Latency: the unit of a lane starts in the cycle of its ``starts`` and has ended in that of its ``ended``. Throughput: that of the units,
    less where the ports are taken.

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    instructions : In(512).array(len(Lane))
        Constant from their start until they have ended.
    starts : In(len(Lane))
        One cycle, a bit for each lane; a lane starts nothing until it has ended.
    ended : Out(len(Lane))
        One cycle, a bit for each lane.
    codes : Out(4).array(len(Lane))
        With ``ended``, an `ErrorCode`: why it was stopped, 0 if all went well. MM and CONV leave their results in NBout undefined then,
        WGSTORE has updated the rows before the one that was refused, and what the bus refused has been done as far as the bus let it; else
        nothing has been moved.
    constants : In(Constants)
        Constant while a lane that reads them is at work: ``memory_squ`` the LOAD lane, all others the STORE lane.
    clear_flags : In(1)
    nan_seen, infinity_seen : Out(1)
        What the SQUs met; sticky until ``clear_flags``.
    array_working : Out(1)
        A line entered the PE array.
    read_command : Out(stream of `command_layout`)
    read_data : In(stream of 8·bus_bytes bits)
    write_command : Out(stream of `command_layout`)
    write_data : Out(stream of `write_layout`)
        To and from the DMAs.
    read_error, write_error : In(1)
        Sticky, of the DMAs.
    writer_idle : In(1)
    dram : Out(DramPort)
        Of the engine beside the memory, if the configuration has one.
    update_command : Out(stream of `command_layout`), if there is no engine
    update_data : In(stream of 8·bus_bytes bits), if there is no engine
    update_error : In(1), if there is no engine
        The bus updater's own reader.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        command, beats = stream.Signature(command_layout()), stream.Signature(8 * config.bus_bytes)
        super().__init__(
            {
                "instructions": In(8 * INSTRUCTION_BYTES).array(len(Lane)),
                "starts": In(len(Lane)),
                "ended": Out(len(Lane)),
                "codes": Out(4).array(len(Lane)),
                "constants": In(Constants),
                "clear_flags": In(1),
                "nan_seen": Out(1),
                "infinity_seen": Out(1),
                "array_working": Out(1),
                "read_command": Out(command),
                "read_data": In(beats),
                "write_command": Out(command),
                "write_data": Out(stream.Signature(write_layout(config.bus_bytes))),
                "read_error": In(1),
                "write_error": In(1),
                "writer_idle": In(1),
                **(
                    {"dram": Out(DramPort(config.dram))}
                    if config.dram
                    else {"update_command": Out(command), "update_data": In(beats), "update_error": In(1)}
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.load_unit = load = LoadUnit(self.config)
        m.submodules.store_unit = store = StoreUnit(self.config)
        m.submodules.compute_unit = compute = ComputeUnit(self.config)
        self._lanes(m, load, store, compute)
        self._memory(m, load, store)
        self._buffers(m, load, store, compute)
        self._nbout(m, load, store, compute)
        return m

    def _lanes(self, m: Module, load: LoadUnit, store: StoreUnit, compute: ComputeUnit) -> None:
        for lane, unit in ((Lane.LOAD, load), (Lane.STORE, store), (Lane.COMPUTE, compute)):
            m.d.comb += [
                unit.instruction.eq(self.instructions[lane]),
                unit.start.eq(self.starts[lane]),
                self.ended[lane].eq(unit.done),
                self.codes[lane].eq(unit.code),
            ]
        m.d.comb += [
            load.squ.eq(self.constants.memory_squ),
            store.constants.eq(self.constants),
            load.clear_flags.eq(self.clear_flags),
            store.clear_flags.eq(self.clear_flags),
            self.nan_seen.eq(load.nan_seen | store.nan_seen),
            self.infinity_seen.eq(load.infinity_seen | store.infinity_seen),
            self.array_working.eq(compute.working),
        ]

    def _memory(self, m: Module, load: LoadUnit, store: StoreUnit) -> None:
        connect(m, load.read_command, self.read_command)
        connect(m, self.read_data, load.read_data)
        connect(m, store.write_command, self.write_command)
        connect(m, store.write_data, self.write_data)
        m.d.comb += [
            load.read_error.eq(self.read_error),
            store.write_error.eq(self.write_error),
            store.writer_idle.eq(self.writer_idle),
        ]
        if self.config.dram:
            wiring.connect(m, wiring.flipped(self.dram), store.dram)
        else:
            connect(m, store.update_command, self.update_command)
            connect(m, self.update_data, store.update_data)
            m.d.comb += store.update_error.eq(self.update_error)

    def _buffers(self, m: Module, load: LoadUnit, store: StoreUnit, compute: ComputeUnit) -> None:
        """NBin and SB: read by the array or by the stores' lane, written by loads, moves and transposes."""
        for side, name, lines, port in (
            (Side.NBIN, "nbin", self.config.nbin_lines, compute.nbin),
            (Side.SB, "sb", self.config.sb_lines, compute.sb),
        ):
            m.submodules[name] = buffer = Qbc(lines, self.config.cols, generation_bits=1)
            moved, loaded, stored = Signal(name=f"{name}_moved"), Signal(name=f"{name}_loaded"), Signal(name=f"{name}_stored")
            write, element = buffer.write, store.element
            m.d.comb += [
                moved.eq(store.line.valid & (store.line.payload.side == int(side))),
                loaded.eq(load.line.valid & (load.line.payload.side == int(side)) & ~moved),
                write.valid.eq(moved | loaded),
                *(
                    write.payload[field].eq(Mux(moved, store.line.payload[field], load.line.payload[field]))
                    for field in ("line", "tag", "data")
                ),
                *(buffer.element.payload[field].eq(element.payload[field]) for field in ("line", "slot", "index", "tag", "value")),
                stored.eq(store.port.enable & (store.read_side == int(side))),
                buffer.read_enable.eq(port.enable | stored),
                buffer.read_line.eq(Mux(stored, store.port.address, port.address)),
                port.line.eq(buffer.read_data),
                port.tag.eq(buffer.read_tag),
                port.written.eq(buffer.read_valid),
            ]
            with m.If(moved):
                m.d.comb += store.line.ready.eq(write.ready)
            with m.If(loaded):
                m.d.comb += load.line.ready.eq(write.ready)
            with m.If(store.side == int(side)):
                m.d.comb += [
                    buffer.element.valid.eq(element.valid),
                    element.ready.eq(buffer.element.ready),
                    buffer.flush.eq(store.flush),
                    store.clean.eq(buffer.clean),
                ]
            with m.If(store.read_side == int(side)):
                m.d.comb += [
                    store.port.line.eq(buffer.read_data),
                    store.port.tag.eq(buffer.read_tag),
                    store.port.written.eq(buffer.read_valid),
                ]

    def _nbout(self, m: Module, load: LoadUnit, store: StoreUnit, compute: ComputeUnit) -> None:
        m.submodules.nbout = nbout = Nbout(self.config.nbout_words, self.config.nbout_lanes)
        writes = Signal()
        m.d.comb += [
            nbout.read_enable.eq(compute.read_enable),
            nbout.read_row.eq(compute.read_row),
            compute.read_data.eq(nbout.read_data),
            store.nbout_read_data.eq(nbout.second_data),
            writes.eq(compute.write_enable.any()),
            load.nbout_free.eq(~writes),
            *(
                getattr(nbout, name).eq(Mux(writes, getattr(compute, name), getattr(load, f"nbout_{name}")))
                for name in ("write_enable", "write_row", "write_data")
            ),
        ]
        connect(m, store.nbout_read, nbout.second)
