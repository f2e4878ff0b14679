"""Which metrics, with which definition ids, each task gets; a task's predictions to its scores.

Imported from outside: definitions, metric, pairs, score_task.
"""
