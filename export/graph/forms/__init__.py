"""The forms of a graph for execution providers: standard operators, blocked ``DequantizeLinear``, float16.

Import ``providers`` for the data and ``forms.rewrite``.
"""
