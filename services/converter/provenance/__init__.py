"""Who has signed an image: cosign's signatures by key pairs, verified before anything of the image is fetched.

What is verified is a digest. From then on the image is asked for by this digest alone, so that nothing can come in the
place of what was verified. Everything that is not a good signature by a key of the policy is a refusal.
"""
