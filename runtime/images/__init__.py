"""Image files, opened with their dangers refused, and made into what a model reads, as its config says.

Import ``image_file.open_image`` and ``prepared.read_images``.
"""
