"""Streams: what a DMA is told, and how a stream is joined to another, to one of several producers or to one of several consumers.

An end of a stream is anything with ``payload``, ``valid`` and ``ready``: a port of this component or of one inside it.
"""

from collections.abc import Sequence
from typing import Any

from amaranth import Module, Mux, Value
from amaranth.hdl import Shape, ValueLike
from amaranth.lib import data

__all__ = ["choose", "command_layout", "connect", "share", "write_layout"]


def command_layout() -> data.StructLayout:
    """What a DMA is told: ``address`` in bytes, aligned to the bus (lower bits are ignored), and ``beats`` to move, 0..65535."""
    return data.StructLayout({"address": 32, "beats": 16})


def write_layout(bus_bytes: int) -> data.StructLayout:
    """A beat to be written, and which of its bytes are."""
    return data.StructLayout({"data": 8 * bus_bytes, "strobe": bus_bytes})


def connect(m: Module, source: Any, sink: Any) -> None:
    """`sink` takes what `source` offers. Raises TypeError if their payloads differ in width, sign or layout."""
    _check_alike(source, sink)
    m.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(source.valid), source.ready.eq(sink.ready)]


def choose(m: Module, select: ValueLike, sources: Sequence[Any], sink: Any) -> None:
    """`sink` takes what source number `select` offers; the others wait. TypeError as of `connect`.

    `select` may change between two payloads only: a source that has offered one must not lose its turn before it was taken. A number beyond
    the last stands for none.
    """
    for source in sources:
        _check_alike(source, sink)
    m.d.comb += [
        sink.payload.eq(_pick(select, [s.payload for s in sources])),
        sink.valid.eq(_pick(select, [s.valid for s in sources], none=0)),
    ]
    for number, source in enumerate(sources):
        m.d.comb += source.ready.eq(_is(select, number, len(sources)) & sink.ready)


def share(m: Module, select: ValueLike, source: Any, sinks: Sequence[Any]) -> None:
    """What `source` offers goes to sink number `select`; the others are offered nothing. TypeError and `select` as of `choose`."""
    for sink in sinks:
        _check_alike(source, sink)
    for number, sink in enumerate(sinks):
        m.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(_is(select, number, len(sinks)) & source.valid)]
    m.d.comb += source.ready.eq(_pick(select, [sink.ready for sink in sinks], none=0))


def _is(select: ValueLike, number: int, count: int) -> Value:
    select = Value.cast(select)
    if count == 2 and len(select) == 1:
        return select if number else ~select
    return select == number


def _pick(select: ValueLike, values: Sequence[Any], none: int | None = None) -> Value:
    """`none` where no value is selected; the last one if nothing is given."""
    count = len(values)
    picked = Value.cast(values[-1])
    if none is not None and count != 1 << len(Value.cast(select)):
        picked = Mux(_is(select, count - 1, count), picked, none)
    for number in reversed(range(count - 1)):
        picked = Mux(_is(select, number, count), values[number], picked)
    return picked


def _check_alike(source: Any, sink: Any) -> None:
    one, other = (_payload_shape(end) for end in (source, sink))
    if one != other:
        raise TypeError(f"a stream of {one} cannot be joined to one of {other}")


def _payload_shape(end: Any) -> Any:
    payload = end.payload
    if isinstance(payload, data.View):
        return payload.shape()
    if not isinstance(payload, Value):
        payload = Value.cast(payload)
    return Shape.cast(payload.shape())
