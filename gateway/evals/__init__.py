"""Evals: what a release is worth, as an estimate with an error bar.

An eval asks a running gateway over HTTP, like any client; nothing that serves requests imports it.
"""
