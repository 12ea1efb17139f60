"""The peers: other tools on the same models, tokens and settings, each in an environment of its own.

python -m edgepress.benchmarks.peers setup llama-cpp      # its environment, below runs/peers
python -m edgepress.benchmarks.peers prepare smollm2      # the model in every peer's form
python -m edgepress.benchmarks.peers measure smollm2      # in turns, into benchmarks/results/
"""
