"""From scores to gains of sharing, their trends with size, curves, and the conclusions they support. Pure.

Imported from outside: analyse, axes, captions, claim, conclusions, curve_shapes, curves, gains, power, size_means,
transfer, trends.
"""
