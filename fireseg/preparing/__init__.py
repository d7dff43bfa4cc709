"""From tiles to patches, and the audit on the way."""

from fireseg.preparing.flow import prepare
from fireseg.preparing.inspect import audit_path
from fireseg.preparing.plan import Wish

__all__ = ["Wish", "audit_path", "prepare"]
