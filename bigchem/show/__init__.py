"""The page of `bigchem show`: what one run did, or how several compare.

Imported from outside: contents, record, write_page.
"""
