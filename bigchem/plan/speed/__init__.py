"""Step time from operations, bytes and stated assumptions; the cost of a run.

Imported from outside: cost, gpu_file, hardware, step_time.
"""
