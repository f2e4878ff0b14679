"""Checkpoints: publishing, verifying, mirroring, resharding, and reading DeepSpeed's files.

Imported from outside: best, ds_checkpoint_engine, hashed_file, mirror, probe, reshard, slots, store, zero_layout.
"""
