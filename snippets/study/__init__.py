"""What compares papers: the study, the atlas, the benchmark."""
