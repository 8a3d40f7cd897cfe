"""Floor 4: colour maps, overlays, figures, pages."""
