"""`bigchem bench`: measurements of the parts, each beside the straightforward way, with outputs compared.

Imported from outside: nothing. bigchem.cli.bench finds the `app` of a module by its name.
"""
