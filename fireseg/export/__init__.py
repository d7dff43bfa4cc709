"""Files of a trained model that run without fireseg, with a parity report, a model card and a STAC item."""
