"""Collection: layers that images brought, and that no image names any more, leave the repository.

`watch` knows for how long the publisher itself has seen a layer named by nothing, `collector` takes those out whose
time is over.
"""
