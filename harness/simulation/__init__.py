"""How a native repository grows with its layers: sizes of catalogs, and what each revision writes."""
