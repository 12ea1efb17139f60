"""Plug-ins: one form in which other tools store quantized weights a file; the file name is ``quant_method``
in ``quantization_config``.
"""
