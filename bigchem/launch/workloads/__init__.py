"""Work split into many jobs or short runs: data builds, evaluations, sweeps, tuning, calibration.

Imported from outside: build, calibrate, evaluate, fine_tune, sweep, tune.
"""
