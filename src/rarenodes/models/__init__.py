"""What is kept of a trained model, and predicting with it."""
