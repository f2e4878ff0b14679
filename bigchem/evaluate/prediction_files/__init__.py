"""Prediction files in all common formats: read, repaired, aligned.

Imported from outside: align, answers, columns, tables.
"""
