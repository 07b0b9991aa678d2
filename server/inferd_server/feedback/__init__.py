"""Prediction tokens, and the true labels that come back for them."""
