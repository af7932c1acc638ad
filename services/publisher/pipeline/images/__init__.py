"""Images on their way: from an ask to a unit that a transaction can take."""
