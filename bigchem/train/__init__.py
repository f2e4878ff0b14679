"""Training under DeepSpeed, from a configuration to a published checkpoint. loop.py reads from top to bottom.

Imported from outside: calibrate, collectives, engine, initial, loop, model_factory, saving, schedule.
"""
