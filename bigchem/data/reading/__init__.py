"""Reading text files, tables and JSON, local or remote: shared by data sources and `bigchem score`.

Imported from outside: delimited, json_records, lines, opening, paths.
"""
