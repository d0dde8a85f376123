"""Stylebot: the library behind the stage scripts in src/ (layers are described in the README)."""
