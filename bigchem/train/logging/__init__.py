"""A run's records: metrics.jsonl, TensorBoard, Weights & Biases, MLflow, profiles, the ledger of examples.

Imported from outside: ledger, profiler, scores, services, tracker.
"""
