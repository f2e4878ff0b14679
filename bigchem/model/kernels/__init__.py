"""Triton kernels: attention over packed sequences with a relative-position bias; and FlashAttention-4 beside them.

Imported from outside: aot, bias_gradient, flash4, launch, sass, tiles, varlen_attention.
"""
