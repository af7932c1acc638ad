"""Client of OCI and Docker registries (OCI distribution specification 1.1).

One module per concern: `reference` and `platform` name an image, `manifests` reads what describes it, `credentials`
finds who the user is, `authentication` proves it, `http` sends one request, `transport` sends it until it is answered,
`blobs` streams content, `client` is what the converter uses.
"""
