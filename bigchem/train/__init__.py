"""Training under DeepSpeed: engine, loop, checkpoints, health."""
