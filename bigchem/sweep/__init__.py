"""Sweeps over model size and mixture, and their analysis."""
