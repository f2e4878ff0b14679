"""What verbs have in common: how their help looks, values with names, and the options of those that submit.

Imported from outside: submission, values, verbs.
"""
