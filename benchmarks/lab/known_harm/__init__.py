"""What slices must find and must not: models with harm in a known place, and models without any."""
