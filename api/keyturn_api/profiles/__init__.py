"""How a gateway tells of the request it asks about, a module for each. Only the chosen profile's headers are read: others could be
the caller's own."""

from keyturn_api.profiles.choice import choose
from keyturn_api.profiles.question import Profile, Question, Unreadable

__all__ = ["Profile", "Question", "Unreadable", "choose"]
