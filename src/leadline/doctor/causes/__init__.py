"""What can be wrong, one file per family: each reads the evidence and says what it sees."""
