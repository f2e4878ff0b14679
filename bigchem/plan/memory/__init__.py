"""Bytes of one rank, from shapes alone (pure, but for worst_case, which reads a run's lengths).

Imported from outside: buffers, peak, setup, states, worst_case.
"""
