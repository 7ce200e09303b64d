"""Does a bundle in use still keep its promises: drift, estimates without labels, sequential tests, alarms."""
