"""What registries say when something in them changes: authenticated, written down, answered, and then asked for.

An event is a hint, never an order. It makes the converter ask the registry earlier than it would have done anyway, so
one that is forged, doubled, late or lost costs time and nothing else.
"""
