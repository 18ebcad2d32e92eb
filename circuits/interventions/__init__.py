"""Interventions: features changed in the model, and the effects compared with predictions."""
