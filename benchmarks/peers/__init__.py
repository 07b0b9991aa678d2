"""inferd beside other servers, in one interleaved run."""
