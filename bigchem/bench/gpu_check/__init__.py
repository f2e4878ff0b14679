"""`bigchem bench gpu-check`: everything that only a GPU can answer, in two calls of minutes; its page of the docs.

Imported from outside: check, plain.
"""
