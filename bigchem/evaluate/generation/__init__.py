"""Predictions of a consolidated model: beam search, k-best lists, the round trip.

Imported from outside: generate, inputs, label_scores, predictor, respelled, round_trip.
"""
