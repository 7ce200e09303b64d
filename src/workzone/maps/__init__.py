"""From geotagged decisions to work-zone events on a map. Needs the extra 'eval'."""

from workzone.maps.events import Event, EventSettings, find_events
from workzone.maps.sightings import Sightings

__all__ = ["Event", "EventSettings", "Sightings", "find_events"]
