"""What both processes speak: OpenAI's shapes, server-sent events, the renderer of templates.

No numpy and no other room: the gateway imports this package and nothing else of `model`.
"""
