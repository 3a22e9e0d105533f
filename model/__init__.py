"""The model process: weights, network, engine and its OpenAI-shaped server."""
