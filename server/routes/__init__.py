"""One file per resource; each exports a ``router`` that ``app.py`` includes."""
