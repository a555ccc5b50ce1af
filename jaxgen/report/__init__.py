"""What a run tells its reader: metrics, progress, curves, image grids and sample files."""
