"""From a scene to the map of what burned in it."""
