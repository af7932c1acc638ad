"""What the converter remembers of every wish and image, on disk."""
