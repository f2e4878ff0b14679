"""From scores to gains of sharing, slopes, curves, and the conclusions they support. Pure except for reading files.

Imported from outside: aggregate, analyse, conclusions, curve_shapes, curves, fit, gains, paired, records, results,
score_table.
"""
