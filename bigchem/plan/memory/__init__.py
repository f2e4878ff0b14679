"""Memory of one rank, from shapes alone. Pure except for worst_case, which reads a run's lengths.

Imported from outside: buffers, peak, setup, states, worst_case.
"""
