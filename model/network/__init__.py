"""The networks: what is computed, from token ids to logits or vectors.

Knows numpy and, where there is one, the compiled kernels. Leaves out files, requests and sampling.
"""
