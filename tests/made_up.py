"""Settings of studies whose results are made up: what a training would need, and none is made."""

TRAINING = {
    "seeds": 3,
    "members": 1,
    "epochs": 1,
    "batch_size": 64,
    "learning_rate": 0.005,
    "hidden": 16,
}
