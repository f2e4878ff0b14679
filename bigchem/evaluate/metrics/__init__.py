"""Metrics of single examples, their intervals, and the processes that share the work. Most are pure.

Imported from outside: actions, bertscore, functional_groups, intervals, molecules, pool, reactions, text.
"""
