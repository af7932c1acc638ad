"""What makes clients trust a repository: keys, the certificate, the whitelist, and signed texts in general."""
