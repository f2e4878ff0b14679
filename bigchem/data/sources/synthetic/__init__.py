"""The corpus that ships with the package: five tasks, any number of valid rows, learnable by a 1 M model.

Imported from outside: corpus.
"""
