"""The prefill graph of a decoder bundle: how it is written, smoothed and proven."""
