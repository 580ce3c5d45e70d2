"""The image matrix: catalog, locks and rendering are pure; only build touches the engine."""
