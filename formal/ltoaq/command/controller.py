"""What the controller counts, records and starts, whatever memory, units and host do.

The descriptor's checker is left out: `_AnyChecker` has its ports, answers when it likes and with any of its codes.
"""

from functools import partial
from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from nibblecore.formal.runner import Proof
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.controller import Controller
from nibblecore.hdl.ltoaq.command.descriptor_checker import DescriptorChecker
from nibblecore.hdl.ltoaq.command.errors import ErrorCode

# Few beats a descriptor, for covers that are soon reached.
WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
COUNTED = 4
"""Bits of the counters that are compared; carries go upwards only."""


class _AnyChecker(DescriptorChecker):
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += [self.done.eq(AnySeq(1)), self.code.eq(AnySeq(3))]
        return m


class _Controller(Controller):
    checker = _AnyChecker


class ControllerSpec(wiring.Component):
    """Every input is free in every cycle.

    `over`: the running command is abandoned. `running`, like `over`, is read off the outputs: in between commands the controller has the DMAs
    forget their errors.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.controller = c = _Controller(WIDE_BUS, settle_cycles=2)
        for _, member, port in c.signature.flatten(c):
            if member.flow == wiring.In:
                m.d.comb += Value.cast(port).eq(AnySeq(len(Value.cast(port))))
        self.running, self.over, self.started = Signal(name="running"), Signal(name="over"), Signal(name="started")
        self.overflow = Signal(name="overflow")
        m.d.comb += [self.running.eq(~c.clear_bus), self.overflow.eq(c.push & c.queue_full)]
        with m.If(c.clear_bus):
            m.d.sync += [self.over.eq(0), self.started.eq(0)]
        with m.Else():
            m.d.sync += [
                self.over.eq(self.over | c.abandon | c.soft_reset | (c.failed & ~self.overflow)),
                self.started.eq(self.started | c.start),
            ]
        self.check(m, c)
        return m

    def check(self, m: Module, c: Any) -> None:
        raise NotImplementedError


class CountSpec(ControllerSpec):
    """What joins the queue is waiting, running, or in one of the two counters.

    With `fault`, a soft reset forgets to count one command of three in the queue.
    """

    def check(self, m: Module, c: Any) -> None:
        total, expected, forgotten = (Signal(COUNTED, name=n) for n in ("total", "expected", "forgotten"))
        known = Signal()
        if self.fault:
            with m.If(c.soft_reset & (c.queue_level == 3)):
                m.d.sync += forgotten.eq(forgotten + 1)
            with m.If(c.clear_counters):
                m.d.sync += forgotten.eq(0)
        m.d.comb += total.eq(c.done_count + c.abandoned_count - forgotten + c.queue_level + self.running)
        m.d.sync += [known.eq(~c.clear_counters), expected.eq(total + (c.push & ~c.queue_full))]
        with m.If(known):
            m.d.comb += [Assert(total == expected), Cover((c.abandoned_count == 2) & (c.queue_level == 0))]
        m.d.comb += [
            Assert(c.queue_level <= WIDE_BUS.queue_depth),
            Assert(c.queue_full == (c.queue_level == WIDE_BUS.queue_depth)),
            Assert(c.busy | ~self.running),
        ]


class EndSpec(ControllerSpec):
    """Only a command that has run, and that neither an error nor a soft reset has met, counts as done or raises ``command_done``.

    With `fault`, a command that counts as done may not have started.
    """

    def check(self, m: Module, c: Any) -> None:
        done, known, completes = Signal(), Signal(), Signal()
        m.d.comb += completes.eq((self.started != self.fault) & ~self.over & ~c.soft_reset)
        # A count of one changes the lowest bit.
        m.d.sync += [known.eq(~c.clear_counters), done.eq(c.done_count[0])]
        might = Signal()
        m.d.sync += might.eq(completes)
        m.d.comb += Assert(~c.command_done | completes)
        with m.If(known & (c.done_count[0] != done)):
            m.d.comb += [Assert(might), Cover(1)]


class ErrorSpec(ControllerSpec):
    """The first error stays until it is cleared, with the number of its command; each raises ``failed``.

    With `fault`, the clear of an error takes the one of its cycle along.
    """

    def check(self, m: Module, c: Any) -> None:
        code, sequence = Signal(8), Signal(16)
        free, failed, overflow, number, waiting = Signal(), Signal(), Signal(), Signal(COUNTED), Signal(COUNTED)
        cleared = Signal()
        known = Signal()
        m.d.sync += [
            known.eq(1),
            code.eq(c.error_code),
            sequence.eq(c.error_sequence),
            cleared.eq(c.clear_error),
            free.eq((c.error_code == 0) | c.clear_error),
            failed.eq(c.failed & ~(c.clear_error if self.fault else 0)),
            overflow.eq(self.overflow),
            number.eq(c.done_count + c.abandoned_count),
            waiting.eq(c.queue_level + self.running),
        ]
        of_queue = Signal()
        m.d.comb += of_queue.eq(c.error_code == ErrorCode.QUEUE_OVERFLOW)
        m.d.comb += Assert(~self.overflow | c.failed)
        with m.If(~known):
            m.d.comb += Assert(c.error_code == 0)
        with m.Elif(failed & free):
            m.d.comb += [
                Assert(c.error_code != 0),
                Assert(~of_queue | overflow),
                Assert(c.error_sequence[:COUNTED] == (number + Mux(of_queue, waiting, 0))[:COUNTED]),
                Cover(of_queue & (c.error_sequence == 5)),
                Cover(~of_queue & overflow & (c.error_sequence == 0)),
            ]
        with m.Elif(cleared):
            m.d.comb += Assert((c.error_code == 0) & (c.error_sequence == 0))
        with m.Else():
            m.d.comb += Assert((c.error_code == code) & (c.error_sequence == sequence))


class StartSpec(ControllerSpec):
    """The units start once in a command, out of reset, and not once it has failed; the header is written after they have run.

    With `fault`, the header may not follow a start either.
    """

    def check(self, m: Module, c: Any) -> None:
        fresh, given_up = Signal(), Signal()
        writes = Signal()
        m.d.comb += writes.eq(c.write_command.valid | c.write_data.valid)
        m.d.sync += fresh.eq(c.unit_reset)
        # A soft reset before the start lets the command go on to its start and no further; an error does not.
        with m.If(c.clear_bus):
            m.d.sync += given_up.eq(0)
        with m.Else():
            m.d.sync += given_up.eq(given_up | c.abandon | (c.failed & ~self.overflow))
        m.d.comb += [
            Assert(~c.start | (fresh & ~self.started & ~given_up & self.running)),
            Assert(~writes | (self.started & ~given_up & c.owns_bus)),
            Assert(~writes | ~self.started if self.fault else 1),
            Assert(c.owns_bus | self.started),
            Assert(~(c.unit_reset & self.started) | c.abandon),
            Assert(~c.read_command.valid | (~self.started & ~given_up & self.running)),
            Cover(writes),
            Cover(given_up & self.started & c.unit_reset),
        ]


_CONTROL = "control alone, and unbounded; the checker may answer anything, and benches say what it and the controller do answer"

PROOFS = [
    Proof(
        name="ltoaq.command.controller.counts",
        spec=CountSpec,
        fault=partial(CountSpec, fault=True),
        engine="induction",
        depth=12,
        cover_depth=26,
        reason="the sum holds from cycle to cycle, whatever the state: one step of induction; the fault is found within 12 cycles",
    ),
    *(
        Proof(name=f"ltoaq.command.controller.{name}", spec=spec, fault=partial(spec, fault=True), cover_depth=26, reason=_CONTROL)
        for name, spec in (("ends", EndSpec), ("errors", ErrorSpec), ("starts", StartSpec))
    ),
]
