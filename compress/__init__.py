"""Floor: models are read, compressed block by block, and written.

Rooms from the bottom: ``numbers`` and ``text``, ``model``, ``measure``, ``pipeline``, ``solve``, ``rotate``
and ``train``, ``prune``, ``passes``; on top of them the files of this folder. Import ``api.compress_model``
and ``api.plan_model``.
"""
