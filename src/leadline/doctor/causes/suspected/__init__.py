"""Suspicions, a file per family: what spoils many trainings and suits some, until a trial says."""
