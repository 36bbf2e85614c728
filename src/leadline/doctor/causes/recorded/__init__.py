"""What a recorded loop says of itself: one file per family of causes."""
