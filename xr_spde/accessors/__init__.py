"""What a geophysicist types."""
