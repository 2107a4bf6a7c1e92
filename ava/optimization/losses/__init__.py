"""Losses whose gradients are worth computing by hand."""
