"""``make demo``: the whole chain on two small real models, through the public API alone."""
