"""The metrics of each family and task with their definition ids, and the scoring of a task's predictions.

Imported from outside: definitions, metric, pairs, score_task.
"""
