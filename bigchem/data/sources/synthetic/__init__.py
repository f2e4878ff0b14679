"""The corpus that ships with the package: five tasks, endless, valid, learnable by a model of a million weights.

Imported from outside: corpus.
"""
