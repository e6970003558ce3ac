"""What goes wrong with lanes and landings, each from outside on a real repository."""
