"""`bigchem data init`: looks at files, and writes the recipe that builds them.

Imported from outside: summary, trial, write_recipe.
"""
