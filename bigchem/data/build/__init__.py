"""`bigchem data build`: recipe -> parsed rows -> leak filter -> shards; parallel, resumable, reproducible to the byte.

Imported from outside: lossy, parse, parts, pipeline, recipe, report, select, splits, work_folder, workers.
"""
