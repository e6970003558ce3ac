"""What people see, made of values: pure, for the supervisor that writes it and the commands that show it."""
