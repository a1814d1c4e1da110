"""Between two images: their motion, and the frames nobody saw."""
