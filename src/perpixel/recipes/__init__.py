"""Published settings, one small file a method."""
