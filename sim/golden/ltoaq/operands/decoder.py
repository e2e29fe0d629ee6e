"""Golden twin of the run-length decoder: the format itself, read."""

from nibblecore.sim.formats.run_lengths import Malformed, decode, unpack_codes

__all__ = ["Malformed", "decode", "unpack_codes"]
