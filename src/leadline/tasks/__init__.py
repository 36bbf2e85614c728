"""What 'right' means: the loss, the metrics, the head a model needs."""
