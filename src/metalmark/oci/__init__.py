"""Images: resolve, fetch, verify, pack, and turn layers into a root file system."""
