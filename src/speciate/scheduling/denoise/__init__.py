"""What runs next of images and video: steps of one pass each, and which models are loaded for them."""
