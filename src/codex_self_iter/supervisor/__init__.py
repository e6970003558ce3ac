"""The meeting place of core and world: event -> decide -> persist -> act."""
