"""Golden twin of an edge's feeder: buffer words to the lanes of the array."""

from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.golden.ltoaq.operands.operand_decoder import decode_operand, operand_lanes

__all__ = ["feed"]


def feed(word: int, select: int, bits: int, signed: bool, threshold: int, k: int, role: str, config: LtoaqConfig) -> int:
    """Lanes, 6 bits each, for word `select` of a buffer word: `config.word_elements` elements along K.

    A buffer word holds B·4/bits codes, then their flags from bit 4·B on.
    """
    elements = config.word_elements(bits)
    places = range(select * elements, (select + 1) * elements)
    codes = [word >> bits * place & 2**bits - 1 for place in places]
    flags = [bool(word >> 4 * config.block + place & 1) for place in places]
    values = decode_operand(codes, flags, bits, signed, threshold, k, config.value_max(bits))
    lanes = operand_lanes(values, bits, role).ravel().tolist()
    return sum((lane & 63) << 6 * position for position, lane in enumerate(lanes))
