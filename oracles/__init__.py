"""Adapters: where figures on accuracy come from. Loaded by name through ``aiq.registry``."""
