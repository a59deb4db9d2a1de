"""Training: options, loop, run folder."""
