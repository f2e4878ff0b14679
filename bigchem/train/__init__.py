"""Training under DeepSpeed, from a configuration to a published checkpoint. Start reading at loop.py.

Imported from outside: calibrate, collectives, compiling, engine, initial, loop, model_factory, saving, schedule.
"""
