"""Detecting rare nodes in hierarchical multi-label classification."""
