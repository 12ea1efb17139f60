"""The peers: other tools on the same models, tokens and settings, each in an environment of its own.

python -m edgepress.benchmarks.lab.peers setup llama-cpp      # its environment, below runs/peers
python -m edgepress.benchmarks.lab.peers prepare smollm2      # the model in every peer's form
python -m edgepress.benchmarks.lab.peers measure smollm2      # interleaved, into benchmarks/lab/results/

Tools that quantize, prune or train are rows of studies: run_study peers-compression WORK --peers runs/peers.
"""
