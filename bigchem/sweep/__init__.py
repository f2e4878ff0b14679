"""Sweeps over model size and mixture: `bigchem sweep`.

Imported from outside: grid, outcome, power, select.
"""
