"""Frozen encoders: networks, not trained here, that turn images into features."""
