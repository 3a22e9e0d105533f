"""The gateway: keys, limits, releases and routing in front of everything that speaks OpenAI."""
