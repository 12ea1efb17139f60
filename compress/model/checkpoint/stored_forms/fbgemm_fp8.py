"""Weights in FP8 with a scale a row, as FBGEMM's kernels take them and Llama 3.1 405B is published."""

from .fp8 import FORM as FP8

FORM = FP8
