"""The engine: many requests in, one batch of tokens a step, pieces of answers out."""
