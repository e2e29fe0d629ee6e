"""Golden twins of what stands round an accelerator on a board."""
