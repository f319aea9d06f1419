"""A recipe and a grid into settings that dev chose, seeds, one reading of test, and the frontier of accuracy against
drift: `sweep.py` has the order, `jobs.py` what one worker does, `pool.py` the workers, `settings.py` what is tried and
how dev chooses."""
