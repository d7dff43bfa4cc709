"""Registers the best model of a run in MLflow's model registry."""
