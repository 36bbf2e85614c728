"""Records a training loop as it is: what it calls, on which object, in which order."""
