"""HTTP in, jobs in a database, workers out of process. Never imports a tensor library."""
