"""Scores to gains of sharing, slopes, curves, and sentences that say what they support. Pure, but for reading files.

Imported from outside: aggregate, analyse, conclusions, curve_shapes, curves, fit, gains, paired, records, results,
score_table.
"""
