"""Raw log and raw catalogue in; `events`, `items` and one rejected table each out. Nothing is lost on the way."""
