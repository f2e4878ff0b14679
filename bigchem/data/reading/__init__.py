"""Files as people have them, read one way: what data sources and `bigchem score` share.

Imported from outside: delimited, json_records, lines, opening, paths.
"""
