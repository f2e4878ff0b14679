"""Fits of a metric against model size: curves by size, and parabolas at equal training FLOPs.

Imported from outside: curves, parabola, shapes.
"""
