"""What is installed: the files that come with bigchem, and the packages that it may need.

Imported from outside: packages, resources.
"""
