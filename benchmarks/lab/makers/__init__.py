"""Models and texts that no package carries, made here from a fixed seed: ``{make: NAME, …}`` in a study."""
