"""The training loop and the run folders it writes."""
