"""Tokenizers, chat templates in a child process, and text as it streams."""
