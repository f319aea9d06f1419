"""One YAML file a task; their functions are in `utils.py`, where the runner looks for them."""
