"""Step time, from operations, bytes and stated assumptions; a run's cost.

Imported from outside: cost, gpu_file, hardware, step_time.
"""
