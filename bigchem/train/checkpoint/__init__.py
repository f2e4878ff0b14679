"""Checkpoints: publishing, verifying, mirroring, resharding, and reading DeepSpeed's files.

Imported from outside: async_save, best, ds_checkpoint_engine, hashed_file, mirror, probe, reshard, slots, store,
zero_layout.
"""
