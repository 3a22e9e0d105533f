"""Training: gradients by hand, one loop, and the two things it makes: adapters and `tiny`.

Nothing here is imported by a server. What comes out is read by `model.weights` like any other file.
"""
