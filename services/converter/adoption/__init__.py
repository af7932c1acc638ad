"""Taking over the images of a repository that DUCC made: what there is, what is wrong, and asking for it anew."""
