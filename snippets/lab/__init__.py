"""The bench that the papers' scripts share. It imports no paper."""
