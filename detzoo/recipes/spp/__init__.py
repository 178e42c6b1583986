"""The training of SPP-net: feature maps, fine-tuning, SVMs and box regression."""
