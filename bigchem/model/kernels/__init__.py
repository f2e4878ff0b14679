"""Triton kernels: attention over packed sequences with a relative-position bias."""
