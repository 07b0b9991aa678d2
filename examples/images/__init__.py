"""From training to serving on real images: train, distil, prune, quantise, check, release, ask."""
