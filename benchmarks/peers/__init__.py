"""Other people's software under the same load."""
