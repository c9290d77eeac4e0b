"""Presets; the header of each states its command, cost and expected result."""
