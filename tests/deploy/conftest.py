from exported_models import exported, trained  # noqa: F401
