"""Triton kernels between matrix products: norm with residual and dropout, feed-forward's activations, cross-entropy.

Imported from outside: activation, add_norm, aot, cross_entropy.
"""
