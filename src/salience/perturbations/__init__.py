"""Perturbations of images: one file each, found by the registry."""
