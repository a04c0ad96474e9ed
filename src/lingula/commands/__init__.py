"""Commands: one file, one verb. The only code that knows every part; light to import, heavy inside the functions."""
