"""Doors through which a model becomes an ``OpGraph``; each loads its framework only when called."""
