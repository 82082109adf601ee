"""That this file is here puts `tests/` on the import path, so that any test can use `peers` and the builders."""
