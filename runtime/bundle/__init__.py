"""A bundle on disk: its manifest, its files checked by hash, its graphs read without loading them.

Import ``bundle.Bundle`` and ``verification``.
"""
