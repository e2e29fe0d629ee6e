"""How long a program takes on lanes that work side by side, by the units' rates, and its listing with that beside every instruction."""

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Constant, Instruction, Opcode, Unary
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.control.scoreboard import Lane, Range, conflict, lane_of, ranges

from .asm import listing as source
from .program import Phase, Program

__all__ = ["Estimate", "Job", "Timeline", "estimates", "jobs", "listing", "makespan", "phases"]

# Cycles of the controller.
_FETCH, _FETCH_BESIDE_A_LOAD, _QUEUE = 26, 67, 4
"""To fetch an instruction, beside its beats, and how many wait, the next one among them."""
_CHECK, _CHECK_OF_A_PLACE = 2, 3
_TURN = 20
"""From the end of an update to the start of one that waited for it, at most."""
# Cycles that a unit takes to begin and to end; as the Verilog of TINY does.
_PIPELINE = {
    Opcode.SLOAD: 43,
    Opcode.SSTORE: 26,
    Opcode.VLOAD: 43,
    Opcode.VSTORE: 26,
    Opcode.QLOAD: 47,
    Opcode.QMOVE: 14,
    Opcode.QSTORE: 25,
    Opcode.WGSTORE: 63,
    Opcode.VTURN: 14,
    Opcode.MM: 18,
    Opcode.CONV: 18,
    Opcode.VFUN: 19,
}
_VECTOR = 10
_REDUCTIONS = (Opcode.HADD, Opcode.HMUL, Opcode.HMAX)
_SUM = 4
"""Cycles for which an element of a reduction waits for the one before, and so how many rows go side by side."""
_FAR_WORD = 1.5
"""Cycles for a word read alone from memory, where those of a row are no neighbours."""
_LEFT = 0.35
"""Of a cycle in which computing reads a row of NBout, what a store has, as the Verilog of TINY does: half are the rows of the other parity,
of which its short queue misses some."""
_IN_LANES = 0.7
"""Of the rows that lanes read, those that stand in a store's way, as the Verilog of TINY does: neighbours are of either parity in turn."""
_SHORT_ROW = 8
"""Cycles at least for a row of weights whose update runs over the bus."""
_BLOCK = 1024
_PLACES = ("dest", "src", "a", "b", "w", "m", "v")


class _Use(Enum):
    """What an instruction keeps from others beside its lane."""

    ENGINE = 0
    BUFFER_READS = 1
    PRODUCT = 2


_Resource = Lane | _Use


class Job(NamedTuple):
    """An instruction as the lanes see it.

    Members
    -------
    needs, holds : tuple of resources
        Those that must be free when it starts, and those that are not while it is at work.
    check, cycles : int
        Until it is known to be legal, and at work, if nothing is in its way.
    reads : float
        Rows of NBout that it reads in a cycle.
    """

    needs: tuple[_Resource, ...]
    holds: tuple[_Resource, ...]
    check: int
    cycles: int
    reads: float = 0

    @property
    def lane(self) -> Lane | None:
        """HALT and CROSET have none."""
        return next((resource for resource in self.holds if isinstance(resource, Lane)), None)


class Estimate(NamedTuple):
    """The cycle in which an instruction starts, how many it is at work, in which lane, and the phase they count for."""

    start: int
    cycles: int
    lane: Lane | None
    phase: Phase


class Timeline:
    """The controller and its lanes: instructions are fetched ahead, then checked and started in their order.

    Stores wait where computing reads NBout, so that they may end later than they would by themselves.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self._beats = -(-INSTRUCTION_BYTES // config.bus_bytes)
        self._free: dict[_Resource, int] = dict.fromkeys((*Lane, *_Use), 0)
        self._fetched = self.started = 0
        self._updates: deque[tuple[int, int]] = deque(maxlen=_QUEUE)
        self._reads = dict.fromkeys(Lane, 0.0)
        self._stored: tuple[_Resource, ...] = ()
        self._starts: deque[int] = deque([0] * _QUEUE, _QUEUE)
        self._fetch_next()

    def start(self, job: Job, ready: int = 0) -> int:
        """When it would start if it were the next one, and not before `ready`."""
        begin = max(self._available + job.check, ready)
        for resource in job.needs:
            begin = max(begin, self._free[resource])
        return begin

    def issue(self, job: Job, ready: int = 0) -> int:
        """Starts it; returns when."""
        begin = self.start(job, ready)
        for resource in job.holds:
            self._free[resource] = begin + job.cycles
        if job.lane is not None:
            self._reads[job.lane] = job.reads
        if job.lane == Lane.STORE:
            self._stored = job.holds
        if job.lane in (Lane.STORE, Lane.COMPUTE):
            self._share(begin)
        if _Use.ENGINE in job.holds:
            self._updates.append((begin, begin + job.cycles))
        self._starts.append(begin)
        self.started = begin
        self._fetch_next()
        return begin

    def end(self, lane: Lane) -> int:
        """When what a lane was given last will end."""
        return self._free[lane]

    def _share(self, begin: int) -> None:
        """NBout's reads, from `begin` on: computing has what it wants, the store the rest."""
        wanted, left = self._reads[Lane.STORE], 1 - (1 - _LEFT) * min(self._reads[Lane.COMPUTE], 1)
        window, work = self._free[Lane.COMPUTE] - begin, self._free[Lane.STORE] - begin
        if window <= 0 or work <= 0 or wanted <= left:
            return
        # A read takes the longer; what a store does between its reads takes as long as ever.
        speed = 1 / (1 + wanted * (1 / left - 1))
        spent = work / speed if work <= window * speed else window + work - window * speed
        for resource in self._stored:
            self._free[resource] = begin + int(spent)

    def _fetch_next(self) -> None:
        begin = max(self._fetched, self._starts[0])
        # The engine beside the memory has it to itself; of updates that follow each other the next begins before anything is fetched.
        for first, end in self._updates:
            if first - _TURN <= begin < end:
                begin = end
        self._fetched = begin + self._beats + (_FETCH_BESIDE_A_LOAD if begin < self._free[Lane.LOAD] else _FETCH)
        self._available = max(self._fetched, self.started)


def jobs(program: Program, config: CambriconqConfig) -> Iterator[Job]:
    """In the order of the instructions. One candidate is taken to be tried for every block until CROSET says otherwise."""
    candidates = {Constant.SQU: 1, Constant.MEMORY_SQU: 1}
    for instruction in program.instructions:
        opcode, fields = instruction.opcode, instruction.fields
        check = _CHECK + _CHECK_OF_A_PLACE * sum(name in fields for name in _PLACES)
        if opcode == Opcode.HALT:
            yield Job(tuple(Lane), (), check, 0)
        elif opcode == Opcode.CROSET:
            if fields["register"] in candidates:
                candidates[Constant(fields["register"])] = (fields["value"] & 3) + 1
            yield Job((Lane.LOAD if fields["register"] >= Constant.MEMORY_SQU else Lane.STORE,), (), check, 0)
        else:
            squ = candidates[Constant.MEMORY_SQU if opcode == Opcode.QLOAD else Constant.SQU]
            needs, holds = _resources(opcode, config)
            cycles = _work(instruction, config, squ)
            yield Job(needs, holds, check, cycles, _reads(instruction, config) / cycles)


def estimates(program: Program, config: CambriconqConfig) -> list[Estimate]:
    """In the order of the instructions."""
    timeline, found = Timeline(config), list[Estimate]()
    at_work: dict[Lane, tuple[int, list[Range]]] = {}
    for number, (instruction, job) in enumerate(zip(program.instructions, jobs(program, config), strict=True)):
        touched = ranges(instruction.opcode.name, instruction.fields, config)
        ends = [timeline.end(lane) for lane, (_, others) in at_work.items() if conflict(touched, others)]
        start, lane = timeline.issue(job, max((end for end in ends if end > timeline.started), default=0)), job.lane
        found.append(Estimate(start, job.cycles, lane, Phase(instruction.fields.get("phase", Phase.OTHER))))
        if lane is not None:
            at_work[lane] = number, touched
        if Lane.STORE in at_work:
            store = at_work[Lane.STORE][0]
            found[store] = found[store]._replace(cycles=timeline.end(Lane.STORE) - found[store].start)
    return found


def makespan(program: Program, config: CambriconqConfig) -> int:
    """Cycles to the end of the last instruction."""
    return _end(estimates(program, config))


def phases(program: Program, config: CambriconqConfig) -> dict[Phase, int]:
    """Cycles that each counter counts, as the controller does: a cycle counts for the oldest instruction at work; one without any for the
    last that was, which CROSET and HALT never are, or for phase 0 before the first.
    """
    return _counted(estimates(program, config))


def listing(program: Program, config: CambriconqConfig) -> str:
    """A line for each instruction, index, start, cycles of work, lane, phase and source, and the totals."""
    lines = ["# index    start   cycles  lane     phase"]
    found = estimates(program, config)
    for number, (instruction, (start, cycles, lane, phase)) in enumerate(zip(program.instructions, found, strict=True)):
        name = "-" if lane is None else lane.name
        lines.append(f"{number:7} {start:8} {cycles:8}  {name:7}  {phase.name:5}  {source(instruction)}")
    total = _end(found)
    lines.append(f"# {len(found)} instructions, about {total:,} cycles; S, the statistic, is taken on the fly within Q")
    for lane in Lane:
        busy = sum(each.cycles for each in found if each.lane == lane)
        lines.append(f"# {lane.name:7} {busy:9,}  {busy / max(total, 1):6.1%} busy")
    counted = _counted(found)
    for phase in Phase:
        work = sum(each.cycles for each in found if each.phase == phase)
        lines.append(f"# {phase.name:5} {work:9,} of work, {counted[phase]:9,} counted  {counted[phase] / max(total, 1):6.1%}")
    return "".join(f"{line}\n" for line in lines)


def _end(found: Iterable[Estimate]) -> int:
    return max((each.start + each.cycles for each in found), default=0)


def _counted(found: Iterable[Estimate]) -> dict[Phase, int]:
    """In the order in which they start, so that of those at work in a cycle the first is the oldest."""
    total, now, last = dict.fromkeys(Phase, 0), 0, Phase.OTHER
    for start, cycles, _, phase in found:
        if start > now:
            total[last] += start - now
            now = start
        if start + cycles > now:
            total[phase] += start + cycles - now
            now, last = start + cycles, phase
    return total


def _resources(opcode: Opcode, config: CambriconqConfig) -> tuple[tuple[_Resource, ...], tuple[_Resource, ...]]:
    """What an instruction with a lane needs and holds."""
    lane = lane_of(opcode.name)
    if opcode == Opcode.WGSTORE and config.dram is not None:
        return (lane, Lane.LOAD), (lane, _Use.ENGINE)
    if opcode in (Opcode.VSTORE, Opcode.VTURN):
        return (lane, _Use.PRODUCT), (lane, _Use.BUFFER_READS)
    if opcode in (Opcode.MM, Opcode.CONV):
        return (lane, _Use.BUFFER_READS), (lane, _Use.PRODUCT)
    return ((lane, _Use.ENGINE) if lane == Lane.LOAD else (lane,)), (lane,)


def _work(instruction: Instruction, config: CambriconqConfig, candidates: int) -> int:
    """Cycles in which a unit is at work."""
    opcode, f = instruction.opcode, instruction.fields
    rows, cols = f.get("rows", 1), f.get("cols", 1)
    start = _PIPELINE.get(opcode, _VECTOR)
    if opcode in (Opcode.MM, Opcode.CONV):
        return start + _product(instruction, config)
    if opcode in (Opcode.VLOAD, Opcode.VSTORE):
        return start + f["vectors"] * (f["slot"] + 1)
    if opcode == Opcode.VTURN:
        return start + rows * cols * f["slot"]
    if opcode in (Opcode.QLOAD, Opcode.QMOVE, Opcode.QSTORE):
        beats = -(-cols // config.cols) * config.cols // config.beat_words
        moved = _moved(f, config, {"src": 4 if opcode == Opcode.QLOAD else 1})
        words = cols * _FAR_WORD if f["src_col"] != 4 and opcode == Opcode.QLOAD else moved + beats - -(-cols // config.beat_words)
        # A short block waits for the result buffers (Squ); the last one is seen whole before it leaves.
        return start + rows * max(beats * candidates, (beats + 8) // 2, int(words)) + 2 * min(beats, _BLOCK // config.beat_words)
    if opcode in (Opcode.SLOAD, Opcode.SSTORE):
        near, far = ("dest", "src") if opcode == Opcode.SLOAD else ("src", "dest")
        return start + rows * _moved(f, config, {near: 1, far: 4})
    if opcode == Opcode.WGSTORE:
        if config.dram is None:
            return start + rows * max(int(cols * max(1, 3 * 4 / config.bus_bytes)), _SHORT_ROW)
        return start + rows * cols + (0 if f["mem_row"] == 4 * cols else (rows - 1) * start)
    together = _together(opcode, f, config)
    if opcode in _REDUCTIONS:
        rows = -(-rows // together)
        groups = [_SUM] * (rows // _SUM) + [rows % _SUM] * (rows % _SUM != 0)
        return start + sum(_SUM * (cols - 1) + size for size in groups)
    if together > 1:
        steps = rows * -(-cols // together)
        read = sum(_rows_read(f, place, config.nbout_lanes, together) for place in ("a", "b") if place in f)
        return _VECTOR + max(steps, int(read))
    return start + int(rows * cols * (_pair(f, config.nbout_lanes) if "b" in f else 1))


def _together(opcode: Opcode, f: dict[str, int], config: CambriconqConfig) -> int:
    """Elements that the vector unit takes at a time (`VectorLanes`)."""
    group = config.vector_lanes
    if opcode in _REDUCTIONS:
        neighbours = f["src_row"] == f["dest_row"] == 1
        places = (f["src"], f["dest"], f["src_col"] * (f["cols"] > 1))
        return group if neighbours and not any(place % group for place in places) else 1
    if opcode == Opcode.VFUN and f["function"] not in (Unary.COPY, Unary.RELU):
        return 1

    def begins(place: str) -> bool:
        return f[f"{place}_col"] == 1 and f[place] % group == 0 and (f["rows"] == 1 or f[f"{place}_row"] % group == 0)

    operands = [place for place in ("a", "b") if place in f]
    return group if begins("dest") and all(f[f"{place}_col"] == 0 or begins(place) for place in operands) else 1


def _rows_read(f: dict[str, int], place: str, lanes: int, together: int) -> float:
    """Rows of NBout that an operand's elements are in, one after the other."""
    if f[f"{place}_col"] == 0:
        return 1 if f[f"{place}_row"] == 0 else f["rows"] * min(f[f"{place}_row"] / lanes, 1)
    across = -(-f["cols"] // together) * together / lanes
    if f[f"{place}_row"] == 0:
        return f["rows"] * across if across > 1 else 1
    return f["rows"] * max(across, min(f[f"{place}_row"] / lanes, 1))


def _moved(f: dict[str, int], config: CambriconqConfig, places: dict[str, int]) -> int:
    """Cycles for the words of a row: a beat of them a cycle where the rows of all places begin on one (`Place.wide`), given a word's unit."""
    words = config.beat_words
    wide = all(
        f.get(f"{name}_col", unit) == unit
        and f[name] % (words * unit) == 0
        and (f["rows"] == 1 or f[f"{name}_row"] % (words * unit) == 0)
        for name, unit in places.items()
    )
    return -(-f["cols"] // words) if wide else f["cols"]


def _reads(instruction: Instruction, config: CambriconqConfig) -> float:
    """Cycles in which a row of NBout is read: once for all its words that follow each other.

    A store that goes word by word counts for each: its short queue does not outlast the bursts in which computing reads.
    """
    opcode, f, lanes = instruction.opcode, instruction.fields, config.nbout_lanes
    rows, cols = f.get("rows", 1), f.get("cols", 1)
    if lane_of(opcode.name) == Lane.STORE:
        if "src_col" not in f:
            return 0
        moved = _moved(f, config, {"src": 1} | ({"dest": 4} if opcode == Opcode.SSTORE else {}))
        return rows * (cols if opcode == Opcode.WGSTORE or moved == cols else moved * config.beat_words / lanes)
    if opcode in (Opcode.MM, Opcode.CONV):
        vectors = f["vectors"] * f.get("kernel_rows", 1) * f.get("kernel_cols", 1)
        return rows * -(-cols // lanes) * (-(-vectors // f["group"]) - 1 + f["accumulate"])
    together = _together(opcode, f, config) if lane_of(opcode.name) == Lane.COMPUTE else 1
    if together > 1 and opcode in _REDUCTIONS:
        return -(-rows // together) * cols * min(1, f["src_col"] / lanes)
    if together > 1:
        return _IN_LANES * sum(_rows_read(f, place, lanes, together) for place in ("a", "b") if place in f)
    along = "row" if cols == 1 or (opcode in _REDUCTIONS and rows > 1) else "col"
    distances = (f[f"{place}_{along}"] for place in ("a", "b", "src") if f"{place}_col" in f)
    return sum(rows * cols * min(distance / lanes, 1) for distance in distances)


def _pair(f: dict[str, int], lanes: int) -> float:
    """Cycles for two operands, which share NBout's read port: a row is read once for all its words that follow each other."""
    a, b = (min(f[f"{place}_{'col' if f['cols'] > 1 else 'row'}"] / lanes, 1) for place in ("a", "b"))
    return a + b if a + b > 1 else 1 + min(a, b) / 2


def _product(instruction: Instruction, config: CambriconqConfig) -> int:
    """Tiles of N columns by a group of vectors: passes of all rows, or the load of the next tile where that takes longer."""
    f = instruction.fields
    vectors, group = f["vectors"] * f.get("kernel_rows", 1) * f.get("kernel_cols", 1), f["group"]
    total = 0
    for number in range(-(-vectors // group)):
        size = min(group, vectors - number * group)
        compute = f["rows"] * max(4, size * f["a_slot"] * f["w_slot"])
        load = config.rows * size * f["w_slot"]
        total += max(compute, load) * -(-f["cols"] // config.rows) + (load if number == 0 else 0)
    return total
