"""Golden twin of the run-length encoder: the format itself, written."""

from nibblecore.sim.formats.run_lengths import encode, run_codes

__all__ = ["encode", "run_codes"]
