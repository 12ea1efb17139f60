"""The text side of a GGUF file: its tokenizer, and how an encoder's states become one vector."""
