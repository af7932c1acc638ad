"""The driver as a managed plugin (`docker plugin install`): its config.json, and its start inside the plugin."""
