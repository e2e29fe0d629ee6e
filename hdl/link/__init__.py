"""The link between a host and an accelerator on a board: frames of register and memory accesses over a serial line (docs/link.md)."""
