"""Floor: graphs are built, proven and published.

Rooms from the bottom: ``graph``; the files ``job``, ``format`` and ``bundle_manifest``; ``proof``,
``formats``; on top ``card`` and ``api``. Import ``api.export_bundle``; a new format imports ``format`` and
``job``.
"""
