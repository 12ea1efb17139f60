"""XLM-RoBERTa (bge-m3, multilingual-e5): RoBERTa with another vocabulary.

Conneau et al., Unsupervised Cross-lingual Representation Learning at Scale, 2019, arXiv 1911.02116.
"""

from .roberta import SIZES, anatomy

__all__ = ["SIZES", "anatomy"]
