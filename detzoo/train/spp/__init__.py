"""SPP-net's chain of trainings (arXiv:1406.4729, section 4): maps, fine-tuning, linear SVMs, box regression."""
