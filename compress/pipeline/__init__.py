"""The sweep: blocks through statistics and passes, stages, and a journal that survives kills.

Import ``algorithm`` (what a pass is), ``block``, ``stage`` and ``chain``.
"""
