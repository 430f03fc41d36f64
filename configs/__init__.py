"""Model cards, aliases and prompt templates; data only. The file makes the folder a package resource."""
