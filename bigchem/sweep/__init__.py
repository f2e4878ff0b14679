"""Sweeps over model size and mixture: `bigchem sweep`.

Imported from outside: archive, grid, outcome, power, select.
"""
