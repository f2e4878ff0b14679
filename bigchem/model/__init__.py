"""The packed T5: presets, operation counts, attention backends, and the module itself.

Imported from outside: attention, dropout, feed, flops, functional, layout, linear, packed_batch, parameters, presets,
relative_bias, t5.
"""
