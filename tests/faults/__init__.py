"""Faults in large numbers: mutated files of every kind, kills of training. `make test-faults` records counts."""
