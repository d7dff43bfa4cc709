"""What a run tells the outside while it trains: MLflow, W&B, both or nobody."""

from fireseg.tracker.artifacts import fetch_artifact
from fireseg.tracker.mlflow import add_to_run, create_mlflow_tracker
from fireseg.tracker.protocol import Status, Tracker, create_mlflow_wandb_tracker, create_no_tracker
from fireseg.tracker.wandb import create_wandb_tracker

__all__ = [
    "Status",
    "Tracker",
    "add_to_run",
    "create_mlflow_tracker",
    "create_mlflow_wandb_tracker",
    "create_no_tracker",
    "create_wandb_tracker",
    "fetch_artifact",
]
