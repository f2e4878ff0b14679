"""The web page of `bigchem serve`.

Imported from outside: page.
"""
