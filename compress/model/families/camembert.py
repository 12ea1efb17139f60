"""CamemBERT: RoBERTa for French.

Martin et al., CamemBERT: a Tasty French Language Model, 2019, arXiv 1911.03894.
"""

from .roberta import SIZES, anatomy

__all__ = ["SIZES", "anatomy"]
