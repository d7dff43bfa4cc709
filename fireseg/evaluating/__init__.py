"""What a finished run is worth on a split: pixels, fires, edges, probabilities, and the index that costs nothing."""
