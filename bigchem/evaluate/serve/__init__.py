"""The web page of `bigchem serve`.

Imported from outside: example_inputs, page.
"""
