"""What is the same on every board: an accelerator, its memory, and a host's line to both."""

from dataclasses import replace
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.cambriconq import top as cambriconq
from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig
from nibblecore.hdl.link.byte_link import ByteLink
from nibblecore.hdl.link.serial_link import SerialLink
from nibblecore.hdl.ltoaq import top as ltoaq

from .block_memory import BlockMemory
from .chips import SdramChip, SdramTiming
from .sdram_controller import SdramPins
from .sdram_memory import SdramMemory
from .targets import build_of

__all__ = ["Board", "on_boards"]

_LIT_SECONDS = 0.05
"""For the eye."""


def on_boards(config: LtoaqConfig | CambriconqConfig) -> LtoaqConfig | CambriconqConfig:
    """What a board has of a configuration: LT-OAQ's products are paired if it can be done, for multipliers of 18 × 18 bits."""
    if isinstance(config, CambriconqConfig):
        return config
    return replace(config, paired=config.lanes == 4 and not config.fused)


class Board(wiring.Component):
    """A whole design for a board, but for its pins and its clock: one clock, ``clk``, and a reset, ``rst``, which resets all of it.

    Latency: that of its parts. Throughput: that of the line.

    Parameters
    ----------
    config : LtoaqConfig or CambriconqConfig
        Of the accelerator, which is that of `on_boards`.
    memory_bytes : int
        As of `BlockMemory`, below 4 GiB. ValueError otherwise.
    clock_hz : int
    baud : int or None
        Of the line, as of `SerialLink`; None for a line that brings bytes, as of `ByteLink`.
    sdram : (SdramChip, SdramTiming) or None
        Memory is an `SdramMemory`, which no engine can be beside; ValueError otherwise.

    Members
    -------
    rx : In(1)
    tx : Out(1)
        The line, as of `SerialLink`; only with ``baud``.
    data, received, broken, line
        The line, as of `ByteLink`; only without.
    sdram : Out(SdramPins(chip))
        Only with ``sdram``.
    busy : Out(1)
        For a lamp: the accelerator moves data, or did a moment ago.
    error : Out(1)
        For a lamp: since the last reset the accelerator has been refused an access to memory.
    """

    def __init__(
        self,
        config: LtoaqConfig | CambriconqConfig,
        *,
        memory_bytes: int,
        clock_hz: int,
        baud: int | None,
        sdram: tuple[SdramChip, SdramTiming] | None = None,
    ) -> None:
        self.config = config
        dram = config.dram if isinstance(config, CambriconqConfig) else None
        if sdram and dram:
            raise ValueError("the engine beside the memory needs banks of block RAM")
        self._memory: BlockMemory | SdramMemory = (
            SdramMemory(config.bus_bytes, memory_bytes, *sdram) if sdram else BlockMemory(config.bus_bytes, memory_bytes, dram)
        )
        self.memory_bytes = memory_bytes
        self.clock_hz = clock_hz
        self.baud = baud
        serial = {"rx": In(1), "tx": Out(1, init=1)}
        by_bytes = {"data": In(8), "received": In(1), "broken": In(1), "line": Out(stream.Signature(8))}
        chip = {"sdram": Out(SdramPins(sdram[0]))} if sdram else {}
        super().__init__({**(serial if baud else by_bytes), **chip, "busy": Out(1), "error": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accelerator = accelerator = self._accelerator()
        m.submodules.memory = memory = self._memory
        arguments = (self.memory_bytes, self.clock_hz, build_of(self.config), accelerator.s_axi.signature.address_bits)
        if self.baud:
            m.submodules.link = link = SerialLink(self.baud, *arguments)
            m.d.comb += [link.rx.eq(self.rx), self.tx.eq(link.tx)]
        else:
            m.submodules.link = link = ByteLink(*arguments)
            connect(m, link.line, self.line)
            m.d.comb += [link.data.eq(self.data), link.received.eq(self.received), link.broken.eq(self.broken)]
        wiring.connect(m, link.m_axi, accelerator.s_axi)
        wiring.connect(m, accelerator.m_axi, memory.s_axi)
        if isinstance(self.config, CambriconqConfig) and self.config.dram:
            wiring.connect(m, accelerator.dram, memory.dram)
        if isinstance(memory, SdramMemory):
            wiring.connect(m, memory.pins, wiring.flipped(self.sdram))
        # The link's state is far from the block RAMs, whose addresses are many: a request rests once on its way.
        m.submodules.requests = requests = SyncFIFOBuffered(width=memory.memory_request.payload.shape().size, depth=1)
        m.d.comb += [
            requests.w_data.eq(link.memory_request.payload),
            requests.w_en.eq(link.memory_request.valid),
            link.memory_request.ready.eq(requests.w_rdy),
            memory.memory_request.payload.eq(requests.r_data),
            memory.memory_request.valid.eq(requests.r_rdy),
            requests.r_en.eq(memory.memory_request.ready),
        ]
        connect(m, memory.memory_response, link.memory_response)
        m.d.comb += link.irq.eq(accelerator.irq)

        lit = Signal(range(int(self.clock_hz * _LIT_SECONDS) + 1))
        m.d.comb += self.busy.eq(lit != 0)
        m.d.sync += lit.eq(Mux(memory.busy, int(self.clock_hz * _LIT_SECONDS), Mux(self.busy, lit - 1, 0)))
        with m.If(memory.refused):
            m.d.sync += self.error.eq(1)
        return m

    def _accelerator(self) -> Any:
        config = on_boards(self.config)
        return cambriconq.Accelerator(config) if isinstance(config, CambriconqConfig) else ltoaq.Accelerator(config)
