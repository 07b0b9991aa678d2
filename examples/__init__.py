"""Programs that show inferd at work; each folder has a README on its use."""
