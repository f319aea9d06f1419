"""Studies: what was asked of phantoms, as scripts over the recipe `phantom`, and what came out."""
