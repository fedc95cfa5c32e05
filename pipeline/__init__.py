"""The pipeline around netinv: DVC stages, Ray, MLflow. It orchestrates and holds no science."""
