"""What everything rests on: errors, names, configuration, files, seeds, devices, taps, Profile."""
