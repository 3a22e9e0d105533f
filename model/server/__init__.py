"""The OpenAI-shaped HTTP face of one engine and one embedder."""
