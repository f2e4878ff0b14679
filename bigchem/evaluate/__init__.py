"""Predictions and their scores, by the published protocol.

Imported from outside: compare, published, run, score, score_tables, spelling_probe, subject, trained.
"""
