"""Per-example metrics, their confidence intervals, and a process pool. Mostly pure.

Imported from outside: actions, bertscore, formulas, functional_groups, intervals, labels, molecules, names, numbers,
pool, reactions, text.
"""
