"""What a person types: one small module a command group. Each parses, calls and prints."""
