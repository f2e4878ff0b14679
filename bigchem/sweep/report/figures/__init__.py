"""The report's figures, and what they share: drawing, and points that show their values.

Imported from outside: axes, by_size, drawing, hover, isoflop, paper, size_axes, transfer.
"""
