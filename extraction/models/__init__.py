"""Models found, hashed, loaded, watched and held against themselves."""
