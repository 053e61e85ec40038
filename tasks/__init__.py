"""Verbs: one module per DVC stage, and the typed view of params.yaml."""
