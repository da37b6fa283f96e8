"""Damage done to files on purpose: what each kind of file is read by, mutations of it, processes that read it, kills.

``tools/chaos.py`` is the door. A mutation follows from a seed, the name of an entry point and a number.
"""
