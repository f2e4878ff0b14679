"""Public files from their origins: a manifest with addresses, sizes, hashes and licences; downloads that resume.

Imported from outside: manifest, tree.
"""
