"""`bigchem doctor`: what a machine or a job's nodes have, measured and judged.

Imported from outside: job, machine, measure.
"""
