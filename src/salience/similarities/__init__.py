"""Similarities of two maps or images: one file each, found by the registry. Private helpers begin with an underscore."""
