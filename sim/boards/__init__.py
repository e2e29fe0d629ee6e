"""From a board's design to a board that runs it (docs/boards.md)."""
