"""What the publisher knows about every layer, on disk before anything is answered or done."""
