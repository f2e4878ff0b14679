"""From scores to gains of sharing, their trends with size, curves, and the conclusions they support. Pure.

Imported from outside: analyse, axes, captions, claim, conclusions, gains, isoflop, power, size_means, transfer,
trends.
"""
