"""Prediction files in all the usual formats: read, repaired, aligned.

Imported from outside: align, answers, tables.
"""
