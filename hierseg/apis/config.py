"""Configs whose text is made once."""

from __future__ import annotations

from mmengine.config import Config


class FormattedOnce(Config):
    """A config that is formatted anew only when it has changed.

    MMEngine asks for the text four times at the start of a run and again for every checkpoint, and formatting the
    ensemble's takes seconds.
    """

    @classmethod
    def of(cls, config: Config) -> FormattedOnce:
        """The same config; both share their values."""
        other = cls.__new__(cls)
        vars(other).update(vars(config))
        return other

    @property
    def pretty_text(self) -> str:
        """The config as formatted Python."""
        content = repr(self.to_dict())
        if vars(self).get('_formatted', ('', ''))[0] != content:
            vars(self)['_formatted'] = content, super().pretty_text
        text: str = vars(self)['_formatted'][1]
        return text
