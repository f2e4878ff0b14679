"""Per-example metrics, their confidence intervals, and a process pool for them. Most are pure.

Imported from outside: actions, bertscore, functional_groups, intervals, molecules, pool, reactions, text.
"""
