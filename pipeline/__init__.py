"""The pipeline around netinv: DVC stages, Ray, MLflow. It orchestrates and holds no science."""

import os

# Libraries report their use to their makers only where somebody has said so; read when they are imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
