"""Sweeps: several training runs in one folder, which is their plan, their queue and their record."""
