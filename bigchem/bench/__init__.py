"""`bigchem bench`: measures parts of bigchem against a baseline, and compares outputs.

Imported from outside: nothing. bigchem.cli.tools.bench finds the `main` of a module by name.
"""
