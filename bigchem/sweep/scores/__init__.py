"""Scores of evaluated models: read from result files and tables, compared in budget, grouped, resampled.

Imported from outside: aggregate, estimate, example_draws, records, results, scales,
score_table.
"""
