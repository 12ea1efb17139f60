"""Texts that packages carry: demo corpora and word-pair sets."""
