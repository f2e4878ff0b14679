"""The metrics of each family and task with their definition ids; scores a task's predictions.

Imported from outside: definitions, metric, names, pairs, score_task.
"""
