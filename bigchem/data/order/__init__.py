"""The order of examples: pure functions of seed, rows and mixture, whose only state is a position.

Imported from outside: examples, mixture, row_subset, span_corruption, steps.
"""
