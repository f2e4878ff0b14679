"""Files as people have them, read one way: what data sources and `bigchem score` share.

paths.py: globs and lists to files. opening.py: the bytes of a file or URL, decompressed. lines.py: text and its lines.
delimited.py: the records of CSV and TSV, quoted or not. json_records.py: JSON lines and JSON arrays, nested keys.
"""
