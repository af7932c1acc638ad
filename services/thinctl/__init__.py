"""`thinctl`: what operators ask of a publisher."""
