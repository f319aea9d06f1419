"""Tasks for the runner of lmms-eval, on the examples of a run folder or table:

    CLINALIGN_DATA=run LMMS_EVAL_PLUGINS=clinalign.measuring.lmms \
        python -m lmms_eval --model ... --tasks clinalign_vqa,clinalign_ablations

lmms-eval is not a dependency; it brings its own models and runs ours beside its own tasks.
"""
