"""The engine's commands to any one bank keep DRAM's rules, and its accesses are those of the job, in order."""

from typing import Any

from amaranth import Cat, Module, ResetSignal, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.formal.arith.fp32 import delayed
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.update.ndp_engine import NdpEngine, NdpError
from nibblecore.hdl.cambriconq.update.ndp_rows import OPERANDS
from nibblecore.hdl.config import DramConfig

__all__ = ["PROOFS"]

DRAM = DramConfig(rows=2, columns=2, rcd=2, rp=2, ras=4, wr=3)
_STATE = ["i_w", "i_m", "i_v", "i_g"]


class Lane(wiring.Component):
    """Stands for the optimizer: validity and nothing else, and fewer stages."""

    LATENCY = 2

    def __init__(self) -> None:
        constants = ["c1", "c2", "c3", "c4", "c5", "epsilon"]
        super().__init__(
            {
                **{name: In(32) for name in (*constants, *_STATE)},
                "use_m": In(1),
                "use_rsqrt": In(1),
                "i_valid": In(1),
                "o_valid": Out(1),
                **{f"o_{name}": Out(32) for name in OPERANDS},
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.o_valid.eq(delayed(m, self.i_valid, self.LATENCY, "valid", reset_less=False))
        return m


class Engine(NdpEngine):
    _LANE = Lane


class NdpEngineSpec(wiring.Component):
    """Any jobs within twice the memory, and gradients, at any time; a bank and its rules, the bank being any. No reset, which
    would forget open rows.

    With `hasty`, the bank wants a cycle more from WRITE to PRECHARGE than the engine was told.
    """

    def __init__(self, hasty: bool = False) -> None:
        self.wr = DRAM.wr + 2 * hasty
        super().__init__(
            {"job_valid": In(1), **{name: In(8) for name in OPERANDS}, "count": In(6), "i_valid": In(1), "clear_error": In(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.engine = engine = Engine(DRAM)
        m.d.comb += [
            Assume(~ResetSignal()),
            engine.job.valid.eq(self.job_valid),
            *(engine.job.payload[name].eq(getattr(self, name)) for name in (*OPERANDS, "count")),
            engine.i.valid.eq(self.i_valid),
            engine.clear_error.eq(self.clear_error),
        ]

        # The bank: its open row, and the cycles since each kind of command, which stop at 7.
        bank = AnyConst(3)
        is_open, row = Signal(), Signal(1)
        since = {name: Signal(3, init=7, name=f"since_{name}") for name in ("activate", "precharge", "write")}
        here = engine.bank == bank
        hit = {
            way: [getattr(engine, way) & (getattr(engine, f"{way}_bank_{name}") == bank) for name in OPERANDS]
            for way in ("read", "write")
        }
        event = {"activate": engine.activate & here, "precharge": engine.precharge & here, "write": Cat(hit["write"]).any()}
        for name, counter in since.items():
            with m.If(event[name]):
                m.d.sync += counter.eq(1)
            with m.Elif(counter != 7):
                m.d.sync += counter.eq(counter + 1)
        with m.If(event["activate"]):
            m.d.sync += [is_open.eq(1), row.eq(engine.row)]
            m.d.comb += Assert(~is_open & (since["precharge"] >= DRAM.rp))
        with m.If(event["precharge"]):
            m.d.sync += is_open.eq(0)
            m.d.comb += Assert(is_open & (since["activate"] >= DRAM.ras) & (since["write"] >= self.wr))
        m.d.comb += [Assert(~(engine.activate & engine.precharge)), Assert(engine.busy | ~is_open)]

        # The job: the n-th access is to the n-th word of each operand, in a row that is open; as many reads as writes, never more.
        job = Signal.like(engine.job.payload, reset_less=True)
        reads, writes = Signal(6), Signal(6)
        with m.If(engine.job.valid & engine.job.ready):
            m.d.sync += [job.eq(engine.job.payload), reads.eq(0), writes.eq(0)]
        with m.Else():
            m.d.sync += [reads.eq(reads + engine.read), writes.eq(writes + engine.write)]
        for way, count in (("read", reads), ("write", writes)):
            for name, there in zip(OPERANDS, hit[way], strict=True):
                word = Signal(5, name=f"{way}_word_{name}")
                m.d.comb += word.eq((job[name] >> 2) + count)
                with m.If(getattr(engine, way)):
                    m.d.comb += [
                        Assert(getattr(engine, f"{way}_column") == word[0]),
                        Assert(getattr(engine, f"{way}_bank_{name}") == word[1:4]),
                    ]
                with m.If(there):
                    m.d.comb += Assert(is_open & (row == word[4]) & (since["activate"] >= DRAM.rcd))
        with m.If(engine.read):
            m.d.comb += Assert(reads < job.count)
        with m.If(engine.done):
            m.d.comb += [Assert((reads == job.count) & (writes == job.count)), Cover(job.count == 2)]
        with m.If(engine.error != NdpError.NONE):
            m.d.comb += [Assert((reads == 0) & ~engine.busy), Cover(engine.error == NdpError.BANK_CONFLICT)]
        return m


PROOFS = [
    Proof(
        name="cambriconq.update.ndp_engine.commands",
        spec=NdpEngineSpec,
        fault=lambda: NdpEngineSpec(hasty=True),
        engine="bmc",
        depth=20,
        cover_depth=40,
        timeout=300,
        reason="20 cycles hold a job of one page, and two open pages of a longer one; each further cycle doubles the time. Two columns, "
        "two rows, the optimizer reduced to its validity",
    )
]
