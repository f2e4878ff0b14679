"""Seconds of a step, from operations, bytes and stated assumptions; what a run costs.

Imported from outside: cost, gpu_file, hardware, step_time.
"""
