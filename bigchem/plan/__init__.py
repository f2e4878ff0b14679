"""Arithmetic of memory, before anything runs."""
