"""Scores of evaluated models: read from result files and tables, compared in budget, grouped, resampled.

Imported from outside: aggregate, axes, budgets, estimate, example_draws, mixtures, records, results,
scales, score_table.
"""
