"""Benchmarks of the model: attention, its kernels and tiles, and a training step.

Imported from outside: nothing. bigchem.cli.bench finds the `main` of a module by name.
"""
