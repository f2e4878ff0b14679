"""Benchmarks of the model: attention, its kernels and tiles, and a training step.

Imported from outside: attention, contestants, mix, peers, pieces, tiles, train_step. bigchem.cli.tools.bench finds the
`main` of a module by name.
"""
