"""The command line. Its entry is ``server.cli.main``; every verb is a module of its own."""
