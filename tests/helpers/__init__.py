"""What several test folders share; ``tests/conftest.py`` puts it on the path."""
