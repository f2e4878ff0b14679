"""Inspecting data: `bigchem data audit`, `show` and `preview`.

Imported from outside: audit, preview, show.
"""
