"""`bigchem doctor`: checks and measurements of a machine or a job's nodes.

Imported from outside: job, machine, measure.
"""
