"""What stands round an accelerator on a board: memory, link, and the top that joins them (docs/boards.md)."""
