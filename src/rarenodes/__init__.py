"""Detecting rare nodes in hierarchical multi-label classification."""

import os

# Threads that wait for each other spin only briefly before they sleep. With the OpenMP runtime's own
# setting, a training on a machine shared with other work can take minutes instead of seconds. Read
# when PyTorch is loaded, hence here.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
