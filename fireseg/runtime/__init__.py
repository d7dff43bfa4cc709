"""Runtimes that compute a trained model faster than torch does, and its conversion for them."""
