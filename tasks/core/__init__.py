"""Nouns: one module per artefact. Runs on a bare GPU box, without any pipeline tool."""
