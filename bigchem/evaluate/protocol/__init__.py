"""The metrics of each family and task with their definition ids; scores a task's predictions.

Imported from outside: definitions, metric, pairs, score_task.
"""
