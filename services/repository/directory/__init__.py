"""A repository that is a plain directory tree, for machines without CVMFS.

A batch appears all at once, for readers and across a kill or a power failure, because the renaming of one link makes it
visible, with its layers (`repository`, `transaction`), its images (`images`) and its flat images (`flats`)::

    .batches/.head                  -> .batch-REVISION               what is published
    .batches/.batch-REVISION/       the layers, documents and index of a batch; .staging-TOKEN until it is whole
    .batches/REVISION               -> .head/.is-REVISION            leads to the batch as soon as .head does,
                                    -> .batch-REVISION               and ever after
    .batches/.prepared-DIGEST/      a layer being unpacked, its sidecar beside it
    .layers/XX/DIGEST               -> ../../.batches/REVISION/DIGEST
    DIGEST                          -> .layers/XX/DIGEST/layerfs     (layout flat)
    .metadata/NAME                  -> into the index of .head
    .flat/XX/CONFIG                 -> ../../.batches/REVISION/flats/CONFIG

All links of a batch are there, leading nowhere, before it is visible; those that it makes superfluous go after that,
which a record in the batch (`record`) makes sure of.
"""
