"""Whether other clients give our answers: family by artifact by client, each cell a measured difference or
the client's own refusal.

``python -m edgepress.benchmarks.lab.interop WORK`` makes pico models, compresses and exports them, makes an
environment for each client, runs every cell and writes the table of ``results/interop.md``.
"""
