"""Files of predictions as people have them: read, repaired and counted, aligned.

Imported from outside: align, answers, tables.
"""
