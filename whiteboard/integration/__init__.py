"""Bridges to systems that are not ours: any object with ``nodes`` and ``impulse``."""
