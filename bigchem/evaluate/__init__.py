"""Predictions and their scores, by the published protocol."""
