"""Programs that show inferd at work; README.md says how to run them."""
