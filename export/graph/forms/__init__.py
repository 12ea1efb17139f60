"""The forms a graph takes for an execution provider: half, standard operators, float weights."""
