"""The service: sweep files, Ray Tune trials, MLflow, the command line."""
