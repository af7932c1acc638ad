"""What object stores say when a layer has been uploaded: three dialects in, one type out."""
