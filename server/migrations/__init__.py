"""The database's history. Every process that opens the store brings it up to date first."""
