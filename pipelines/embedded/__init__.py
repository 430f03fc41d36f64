"""The small model that ships with the project, in the published diffusers layout. Made by scripts/train_embedded.py."""
