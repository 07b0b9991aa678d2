"""Other people's clients against our server: what they send is right, by definition."""
