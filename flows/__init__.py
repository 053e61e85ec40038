"""Clocks: when the stages run. No science, and no second copy of the graph in dvc.yaml."""
