"""Triton kernels: attention over packed sequences with a relative-position bias.

Imported from outside: aot, bias_gradient, launch, sass, tiles, varlen_attention.
"""
