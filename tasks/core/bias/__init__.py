"""The bias audit of a table of predictions: counts by group, intervals, rules, verdict."""
