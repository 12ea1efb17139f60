"""Sound files, opened with their dangers refused.

Import ``wav_file.read_sound``.
"""
