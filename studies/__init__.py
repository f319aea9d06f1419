"""Studies: what was asked of phantoms, as scripts over the demo's recipe, and what came out."""
