"""Adaptation methods: what a network learns from unlabelled images of the target, one module per method."""
