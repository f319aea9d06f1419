"""The stages of a run: each a function from the run to the files it wrote. `run.py` has their order."""
