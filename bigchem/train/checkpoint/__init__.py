"""Checkpoints: published, verified, mirrored, resharded; what DeepSpeed's files hold.

Imported from outside: best, ds_checkpoint_engine, hashed_file, mirror, probe, reshard, store, zero_layout.
"""
