"""`bigchem data build`: recipe -> parsed rows -> leak filter -> shards; parallel, resumable, byte for byte
reproducible.

Imported from outside: parse, parts, pipeline, recipe, report, work_folder, workers.
"""
