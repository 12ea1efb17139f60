"""Settings of a GGUF file that transformers leaves out when it reads one: put into the config, or held
against the model that it made.
"""
