"""Step time from operations, bytes and stated assumptions; the cost of a run.

Imported from outside: cost, hardware, step_time.
"""
