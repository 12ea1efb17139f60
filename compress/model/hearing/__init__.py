"""Models that hear: how their encoder reads a sound, and what stands in front of what they write of it."""
