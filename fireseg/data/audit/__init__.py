"""Who knows of whom: shared ground, pixels and activations, and splits in which nobody does."""

from fireseg.data.audit.findings import Audit, audit
from fireseg.data.audit.footprints import Footprint, read_metadata
from fireseg.data.audit.pairs import Finding
from fireseg.data.audit.splitting import choose_split

__all__ = ["Audit", "Finding", "Footprint", "audit", "choose_split", "read_metadata"]
